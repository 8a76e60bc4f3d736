"""The methods: one file or folder for each paper; the file's name is the method's name."""
