// Says who it is, and where the agents are that it depends on.
const http = require("http");

const links = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.endsWith("_SERVICE")));
const server = http.createServer((request, response) => {
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ agent: process.env.AGENT_NAME, path: request.url, links }) + "\n");
});

server.listen(process.env.PORT || 8000);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
