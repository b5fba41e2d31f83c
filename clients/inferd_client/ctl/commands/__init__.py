"""The verbs of inferdctl, one file each, loaded when they are called."""
