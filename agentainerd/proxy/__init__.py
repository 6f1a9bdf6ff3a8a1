"""The data plane: a route table, a journal and sockets; no Redis client, Docker, werkzeug or JSON."""
