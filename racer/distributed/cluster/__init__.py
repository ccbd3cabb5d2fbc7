"""Workers as actors of a Ray cluster. Ray need not be installed, and is not imported, unless it is asked for."""
