"""What the tests share: the interpreters of this machine, built files, child processes."""
