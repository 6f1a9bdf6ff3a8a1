"""Tools of another package, as one finds them by entry point: in the process of the runtime, not of the tests."""

import asyncio
import os
from pathlib import Path

from agentainer_runtime.tool import FileEdit


class Adder:
    name = "add"
    description = "Adds two numbers."
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }

    async def run(self, arguments, context):
        return {"sum": arguments["a"] + arguments["b"]}


class Writer(Adder):
    name = "write"
    description = "Writes a file and reports it."
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}

    async def run(self, arguments, context):
        (context.workspace / arguments["path"]).write_text("x\n")
        context.report_edit(FileEdit(arguments["path"], "created", "+x\n"))
        return {"success": True, "environment": sorted(context.environment), "outputs": str(context.outputs)}


class Appender(Adder):
    name = "append"
    description = "Adds a line to a file, each time that it is called."
    parameters = {"type": "object", "properties": {"line": {"type": "string"}}, "required": ["line"]}

    async def run(self, arguments, context):
        with open(context.workspace / "appended", "a") as file:
            file.write(arguments["line"] + "\n")
        return {"appended": arguments["line"]}


class Sleeper(Adder):
    name = "sleep"
    description = "Takes for ever, in a process."
    parameters = {"type": "object", "properties": {}}

    async def run(self, arguments, context):
        process = await asyncio.create_subprocess_exec("sleep", "300", start_new_session=True)
        (Path(context.workspace) / "sleeper.pid").write_text(str(process.pid))
        try:
            await process.wait()
        finally:
            os.killpg(process.pid, 9)
            await process.wait()
        return {}


class Broken(Adder):
    name = "broken"

    async def run(self, arguments, context):
        raise RuntimeError("a bug of the tool")


class NotJson(Adder):
    name = "not_json"

    async def run(self, arguments, context):
        return {"value": float("nan")}


class Note(Adder):
    name = "note"
    parameters = {"type": "object", "properties": {"text": {"type": "string"}}}

    async def run(self, arguments, context):
        return {"noted": arguments["text"]}
