"""agentainerctl: the command-line tool of agentainerd."""
