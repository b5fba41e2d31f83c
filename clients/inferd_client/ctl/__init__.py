"""inferdctl, the command line: `commands/` has one verb a file, `render` turns data into text."""
