"""agentainerd: runs LLM agents as containers and delivers every request that it accepted."""
