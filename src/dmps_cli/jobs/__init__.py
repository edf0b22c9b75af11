"""Work on files: files in, files out."""
