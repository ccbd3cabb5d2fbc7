"""Does an actor-learner program outlive what happens to its processes, its disk and its checkpoints?"""
