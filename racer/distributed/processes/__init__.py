"""Workers as processes of this machine, each behind a socket of its own, started, watched and replaced here."""
