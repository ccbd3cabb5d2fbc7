"""An actor-learner program in miniature, whole or with a flaw, for the tests of the fault kit.

Two workers send a byte for each step over TCP; the learner counts, logs and saves. A flaw is one thing done wrong:

    lose       resumes from the oldest checkpoint
    reset      forgets the number of updates on resume
    duplicate  resumes from the checkpoint before the newest and leaves the lines beyond it where they are
    trusting   takes the newest checkpoint, whole or not
    unlocked   lets two learners into one folder
    vanish     its workers delete the checkpoints once the learner is gone
    orphan     its workers do not notice that the learner is gone
    memory     leaves shared memory behind
    untidy     leaves a half-written checkpoint behind
    brittle    ends with a worker, or with a write that fails
    deaf       waits for a worker that says nothing for as long as it takes
    broken     ends with an error whatever happens
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

LOG_EVERY, SAVE_EVERY, KEPT, PERIOD, SILENCE = 10, 40, 3, 0.01, 1.0


class Learner:
    def __init__(self, folder: Path, goal: int, flaw: str) -> None:
        self.folder, self.goal, self.flaw = folder, goal, flaw
        self.step = self.updates = 0
        self.waiting: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.workers: dict[socket.socket, tuple[subprocess.Popen[bytes], float]] = {}

    def restore(self) -> None:
        found = sorted(self.folder.glob("saved_*.json"), key=lambda path: int(re.findall(r"\d+", path.name)[0]))
        order = {"lose": found, "duplicate": found[-2:]}.get(self.flaw, found[::-1])
        for path in order:
            text, _, digest = path.read_text("utf-8", "replace").partition("\n")
            if digest != hashlib.sha256(text.encode()).hexdigest():
                if self.flaw == "trusting":
                    sys.exit(f"{path.name} is damaged")
                continue
            values = json.loads(text)
            self.step, self.updates = values["step"], 0 if self.flaw == "reset" else values["updates"]
            break
        else:
            sys.exit("no valid checkpoint")
        log = self.folder / "log.jsonl"
        lines = log.read_text().splitlines(keepends=True)
        if self.flaw != "duplicate":
            log.write_text("".join(line for line in lines if json.loads(line)["step"] <= self.step))

    def start_worker(self) -> None:
        words = [sys.executable, "-I", "-S", __file__, "worker", str(self.listener.getsockname()[1]), self.flaw]
        process = subprocess.Popen(words, cwd=self.folder)
        connection, _ = self.listener.accept()
        self.workers[connection] = process, time.monotonic()

    def drop(self, connection: socket.socket) -> None:
        process, _ = self.workers.pop(connection)
        process.kill()
        process.wait()
        connection.close()
        if self.flaw == "brittle":
            sys.exit("a worker is gone")

    def run(self) -> None:
        while self.step < self.goal:
            while len(self.workers) < 2:
                self.start_worker()
            connections = list(self.workers)
            if self.flaw != "deaf":
                connections = select.select(connections, [], [], PERIOD)[0]
            for connection in connections:
                self.receive(connection)
            for connection, (_, heard) in list(self.workers.items()):
                if time.monotonic() - heard > SILENCE:
                    self.drop(connection)
        self.save()
        for connection in list(self.workers):
            self.workers.pop(connection)[0].kill()

    def receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(1)
            # A worker waits for this, so that none is ahead by steps that a learner without it could live on.
            connection.sendall(data)
        except ConnectionError:
            data = b""
        if not data:
            self.drop(connection)
            return
        self.workers[connection] = self.workers[connection][0], time.monotonic()
        self.step += 1
        self.updates += 1
        if self.step % LOG_EVERY == 0:
            self.waiting.append(json.dumps({"step": self.step, "updates": self.updates, "time": time.time()}) + "\n")
            self.guarded(self.write_log)
        if self.step % SAVE_EVERY == 0:
            self.guarded(self.save)

    def guarded(self, write) -> None:
        try:
            write()
        except OSError as error:
            if self.flaw == "brittle":
                sys.exit(str(error))

    def write_log(self) -> None:
        with (self.folder / "log.jsonl").open("ab", buffering=0) as file:
            while self.waiting:
                line, end = self.waiting[0].encode(), file.tell()
                if file.write(line) != len(line):
                    file.truncate(end)
                    return
                self.waiting.pop(0)

    def save(self) -> None:
        text = json.dumps({"step": self.step, "updates": self.updates, "rest": "x" * 5000})
        half = self.folder / ".half"
        half.write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}")
        half.rename(self.folder / f"saved_{self.step}.json")
        found = sorted(self.folder.glob("saved_*.json"), key=lambda path: int(re.findall(r"\d+", path.name)[0]))
        for path in found[:-KEPT]:
            path.unlink(missing_ok=True)


def learn(folder: Path, goal: int, flaw: str, resume: bool) -> None:
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    if flaw != "unlocked":
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit("the folder is in use")
    if flaw == "memory":
        Path(f"/dev/shm/racer-toy-{os.getpid()}").write_text("left")
    if flaw == "untidy":
        (folder / ".half-of-another").write_text("left")
    if flaw == "broken":
        sys.exit("broken from the beginning")
    learner = Learner(folder, goal, flaw)
    if resume:
        learner.restore()
    learner.run()


def work(port: int, flaw: str) -> None:
    connection = socket.create_connection(("127.0.0.1", port))
    while True:
        try:
            connection.sendall(b"x")
            if not connection.recv(1):
                raise ConnectionError("the learner is gone")
        except OSError:
            if flaw == "vanish":
                for path in Path().glob("saved_*.json"):
                    path.unlink(missing_ok=True)
            if flaw != "orphan":
                return
        time.sleep(PERIOD)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        if sys.argv[1] == "worker":
            work(int(sys.argv[2]), sys.argv[3])
        else:
            learn(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[1] == "resume")
