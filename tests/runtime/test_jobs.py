"""Jobs in the flow of the document: the runtime as a process, a scripted model server, real commands and programs."""

import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from tests.fakes.models import KEY, MODEL, Faults, ModelServer, Turn, When
from tests.fakes.runtime import ROOT, answer_of, checked, run_input, runtimes


def shell(command, **fields):
    return {"type": "shell_command", "description": "", "command": command, **fields}


def python(code, **fields):
    return {"type": "python_code", "description": "", "code": code, **fields}


def plan(*actions, **fields):
    return json.dumps({"actions": actions, "estimated_time": "1 s", "requirements": ["sh"], **fields})


def environment_of(server, **more):
    return {
        "AGENT_MODEL": MODEL, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY, "AGENT_RETRY_PAUSE_S": "0.01", **more,
    }  # fmt: skip


class Jobs:
    """Gives jobs to a runtime; each has an output folder of its own in the workspace."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.count = 0

    @property
    def output(self):
        """Of the last job."""
        return self.runtime.workspace / f"output-{self.count}"

    @property
    def result(self):
        return json.loads((self.output / "result.json").read_text())

    def asked(self, prompt="do it", *, job=None, **fields):
        self.count += 1
        asked = run_input(prompt, run=f"run-{os.getpid()}-{self.count}", **fields)
        given = {"id": f"job-{self.count}", "attempt": 1, "output_dir": str(self.output)}
        asked["forwardedProps"]["job"] = {**given, **(job or {})}
        return asked

    def run(self, prompt="do it", **fields):
        """Do a job; return its events and what it said on the container's streams."""
        before = len(self.runtime.log)
        found = self.runtime.stream("POST", "/invocations", self.asked(prompt, **fields))
        return checked([event for _, event in found]), self.runtime.log[before:]

    def begin(self, prompt="do it", **fields):
        """Begin one; return its run's id and the events that are to come."""
        asked = self.asked(prompt, **fields)
        return asked["runId"], self.runtime.stream("POST", "/invocations", asked)


@pytest.fixture(scope="module")
def model_and_runtime(tmp_path_factory):
    place = tmp_path_factory.mktemp("jobs")
    with ModelServer() as server, runtimes(place) as start:
        yield server, start(**environment_of(server, AGENT_ACTION_TIMEOUT_S="20", JOB_PROMPT_FILE="/p"))


@pytest.fixture(scope="module")
def all_jobs(model_and_runtime):
    return Jobs(model_and_runtime[1])


@pytest.fixture
def models(model_and_runtime):
    model_and_runtime[0].clear()
    return model_and_runtime[0]


@pytest.fixture
def jobs(all_jobs, models):
    return all_jobs


def end_of(events):
    return events[-1]["type"], events[-1].get("code")


def called(events):
    return [event["toolCallName"] for event in events if event["type"] == "TOOL_CALL_START"]


def results_of(events):
    return [json.loads(event["content"]) for event in events if event["type"] == "TOOL_CALL_RESULT"]


def steps_of(events):
    return [event["stepName"] for event in events if event["type"] == "STEP_STARTED"]


def test_a_task_is_analysed_carried_out_in_order_and_its_result_is_beside_the_files(jobs, models):
    analysis = {
        "actions": [
            shell("printf 'one\\n' > a.txt && echo \"job $JOB_ID\" && env", description="Make a file"),
            python("print(open('a.txt').read() + 'two')", output_file="sub/b.txt"),
            shell("cat ../b.txt; echo oops >&2", working_dir="sub/deeper"),
        ],
        "estimated_time": "1 s",
        "requirements": ["sh"],
    }
    models.add(
        Turn(
            text=json.dumps(analysis),
            thinking="let me see",
            cost_usd=0.5,
            when=When(system="You plan a job", user="two files"),
        )
    )

    events, log = jobs.run("make two files")

    assert end_of(events) == ("RUN_FINISHED", None)
    assert steps_of(events) == ["analysis", "shell commands", "Python code", "shell commands 2", "result"]
    assert called(events) == ["shell_command", "python_code", "shell_command"]
    assert [result["exitCode"] for result in results_of(events)] == [0, 0, 0]
    assert [event["value"] for event in events if event.get("name") == "job.analysis"] == [analysis]
    assert answer_of(events).splitlines()[0] == "1. Make a file: worked"
    assert "Files: a.txt (4 bytes), sub/b.txt (8 bytes)" in answer_of(events)
    assert (jobs.output / "sub/b.txt").read_text() == "one\ntwo\n"
    result = jobs.result
    assert (result["task"], result["analysis"], result["status"], result["error"]) == (
        "make two files",
        analysis,
        "complete",
        None,
    )
    first, last = result["shell_results"]
    assert (first["success"], first["return_code"], first["command"]) == (True, 0, analysis["actions"][0]["command"])
    assert first["output"].startswith(f"job {result['job_id']}\n")
    assert (last["output"], last["error"], last["working_dir"]) == (
        "one\ntwo\n",
        "oops\n",
        str(jobs.output / "sub/deeper"),
    )
    assert [each["output"] for each in result["python_results"]] == ["one\ntwo\n"]
    assert result["files"] == [{"path": "a.txt", "bytes": 4}, {"path": "sub/b.txt", "bytes": 8}]
    assert (result["model"], result["usage"]["cost_usd"]) == (MODEL, 0.5)
    assert f"Starting agent for job {result['job_id']} with prompt: make two files\n" in log
    assert f"job {result['job_id']}\n" in log
    assert "oops\n" in log
    assert {f"JOB_OUTPUT_DIR={jobs.output}", "JOB_ATTEMPT=1", "JOB_PROMPT_FILE=/p"} <= set(first["output"].splitlines())
    assert KEY not in first["output"]
    assert "OPENAI" not in first["output"]
    assert sorted(path.name for path in jobs.output.iterdir()) == ["a.txt", "result.json", "sub"]
    assert len(models.received) == 1
    assert "tools" not in models.received[0].body


@pytest.mark.parametrize(
    "prompt",
    [
        'it\'s "quoted" \\ `touch canary` $(touch canary) ; touch canary\n\nand\ttwo lines ü🎉',
        "'; touch canary; '",
        "$(touch canary) " + "x" * 200 * 1024,
    ],
)
def test_a_prompt_is_only_ever_text(jobs, models, prompt):
    models.add(Turn(text=plan(shell("cat ../prompt.txt 2>/dev/null | head -c 1; true"))))

    events, log = jobs.run(prompt)

    assert end_of(events) == ("RUN_FINISHED", None)
    assert jobs.result["task"] == prompt
    assert models.received[0].body["messages"][-1]["content"] == prompt
    assert not list(jobs.runtime.workspace.rglob("canary"))
    line = next(line for line in log.splitlines() if line.startswith("Starting agent for job"))
    assert len(line) < 2200
    assert "touch canary" in line


def test_an_answer_that_is_no_analysis_is_asked_for_once_more(jobs, models):
    models.add(
        Turn(text="I would list the files.", when=When(user="do it")),
        Turn(
            text=f"Sorry:\n```json\n{plan(shell('echo fine'))}\n```",
            when=When(user="no JSON object with `actions`.*JSON object alone"),
        ),
    )

    events, _ = jobs.run()

    assert end_of(events) == ("RUN_FINISHED", None)
    assert steps_of(events) == ["analysis", "analysis 2", "shell commands", "result"]
    assert jobs.result["shell_results"][0]["output"] == "fine\n"
    models.clear()
    models.add(Turn(text="no", times=9))

    events, log = jobs.run()

    assert end_of(events) == ("RUN_ERROR", "model_error")
    assert len(models.received) == 2
    assert jobs.result["status"] == "error"
    assert "gave no analysis" in jobs.result["error"]
    assert jobs.result["shell_results"] == []
    assert "gave no analysis" in log


def test_what_fails_is_recorded_the_rest_is_done_and_the_model_is_asked_once_to_repair_it(jobs, models):
    models.add(
        Turn(text=plan(shell("echo before; echo why >&2; exit 3", description="The first"), shell("echo rest"))),
        Turn(
            text=plan(shell("echo mended > mended.txt")),
            when=When(user="1 of 2 actions failed.*exit code 3.*why.*: worked"),
        ),
    )

    events, log = jobs.run()

    assert end_of(events) == ("RUN_FINISHED", None)
    assert [result["success"] for result in results_of(events)] == [False, True, True]
    result = jobs.result
    assert result["status"] == "complete"
    assert [each["return_code"] for each in result["shell_results"]] == [3, 0, 0]
    assert result["repair"]["actions"][0]["command"] == "echo mended > mended.txt"
    assert len(result["analysis"]["actions"]) == 2
    assert "action 1 (The first): failed, exit code 3" in log
    ends = [line.partition(": ")[2] for line in answer_of(events).splitlines()[:3]]
    assert ends == ["failed, exit code 3", "worked", "worked"]


@pytest.mark.parametrize("answer", [plan(), "I can't.", plan(shell("exit 4"))])
def test_a_job_whose_failure_was_not_repaired_is_no_complete_one(jobs, models, answer):
    models.add(Turn(text=plan(shell("exit 3"), python("raise SystemExit(0)"))), Turn(text=answer, times=2))

    events, _ = jobs.run()

    assert end_of(events) == ("RUN_ERROR", "error")
    assert "actions failed: exit" in events[-1]["message"]
    assert jobs.result["status"] == "error"
    assert jobs.result["error"] == events[-1]["message"]
    assert [each["success"] for each in jobs.result["python_results"]] == [True]
    assert "failed" in answer_of(events)


def test_an_action_works_in_the_workspace_and_nowhere_else(jobs, models):
    models.add(
        Turn(text=plan(
            shell("pwd", working_dir="/"), shell("pwd", working_dir="../.."), shell("pwd", working_dir="../.agentainer/runs"),
            python("print(1)", output_file="/etc/x"), shell("pwd", working_dir=str(jobs.runtime.workspace)), shell("/nowhere/program"),
            python("open('own.csv', 'w').write('mine'); print('done')", output_file="own.csv"),
        )),
        Turn(text=plan()),
    )  # fmt: skip

    events, _ = jobs.run()

    outcomes = results_of(events)
    assert [each["success"] for each in outcomes] == [False] * 4 + [True, False, True]
    assert "is outside" in outcomes[0]["stderr"]
    assert "leads outside" in outcomes[1]["stderr"]
    assert "the runtime's own" in outcomes[2]["stderr"]
    assert outcomes[0]["exitCode"] is None
    assert outcomes[4]["stdout"] == f"{jobs.runtime.workspace}\n"
    assert (
        jobs.output / "own.csv"
    ).read_text() == "mine"  # what the program wrote itself is not replaced by what it printed


def test_what_an_action_prints_is_cut_and_kept_whole_beside_the_result(jobs, models):
    models.add(Turn(text=plan(shell("seq 100000"), python("print('x' * 50000)", output_file="all.txt"))))

    events, log = jobs.run()

    first = jobs.result["shell_results"][0]
    assert len(first["output"]) < 11_000
    assert "bytes left out" in first["output"]
    assert (jobs.output / first["full_output"]).read_bytes() == b"".join(b"%d\n" % n for n in range(1, 100_001))
    assert first["full_output"] in [file["path"] for file in jobs.result["files"]]
    assert (jobs.output / "all.txt").stat().st_size == 50_001
    assert len(log) < 40_000
    assert "99999\n" in log
    assert end_of(events) == ("RUN_FINISHED", None)


def test_an_action_has_a_time_and_its_whole_group_is_ended(start_runtime, models):
    jobs = Jobs(start_runtime(**environment_of(models, AGENT_ACTION_TIMEOUT_S="0.5")))
    models.add(Turn(text=plan(shell("echo begun; (trap '' TERM; sleep 312.5) & wait"))), Turn(text=plan()))

    events, log = jobs.run()

    assert results_of(events)[0]["notice"] == "Ended: it was not done after 0.5 s."
    result = jobs.result["shell_results"][0]
    assert (result["success"], result["output"], result["ended"]) == (False, "begun\n", "it was not done after 0.5 s")
    assert result["duration_s"] < 5
    assert running("sleep 312.5") == []
    assert "not done after 0.5 s" in log


def test_a_cancelled_job_leaves_no_process_and_a_result(jobs, models, eventually):
    models.add(
        Turn(text=plan(shell("echo one"), shell("sleep 313.5 & echo $$ > pid; wait"), shell("echo never > never.txt")))
    )
    run, stream = jobs.begin()
    next(stream)
    eventually(lambda: (jobs.output / "pid").exists() and running("sleep 313.5"))
    assert jobs.result["status"] == "running"

    assert jobs.runtime.ask("POST", f"/runs/{run}/cancel")[0] == 202
    events = [event for _, event in stream]

    assert end_of(events) == ("RUN_ERROR", "cancelled")
    assert [result.get("success") for result in results_of(events)] == [True, None]
    result = jobs.result
    assert (result["status"], result["error"]) == ("cancelled", "the run was cancelled")
    assert [each["success"] for each in result["shell_results"]] == [True, False]
    assert running("sleep 313.5") == []
    assert not (jobs.output / "never.txt").exists()


def test_a_job_that_is_cancelled_while_the_model_thinks_has_a_result_too(jobs, models):
    models.add(Turn(text="never", faults=Faults(first_token_s=30)))
    run, stream = jobs.begin()
    while next(stream)[1]["type"] != "STEP_STARTED":
        pass

    jobs.runtime.ask("POST", f"/runs/{run}/cancel")

    assert [event.get("code") for _, event in stream][-1] == "cancelled"
    assert (jobs.result["status"], jobs.result["shell_results"]) == ("cancelled", [])


def test_a_job_whose_container_was_killed_is_not_done_again_and_its_result_says_so(start_runtime, models, eventually):
    models.add(
        Turn(
            text=plan(
                shell("echo done >> done.txt"), shell("echo begun >> begun.txt; sleep 314.5"), shell("touch never")
            )
        )
    )
    jobs = Jobs(start_runtime(**environment_of(models)))
    asked = jobs.asked()
    stream = jobs.runtime.stream("POST", "/invocations", asked)
    next(stream)
    eventually(lambda: (jobs.output / "begun.txt").exists() and running("sleep 314.5"))
    jobs.runtime.stop(signal.SIGKILL)
    for pid in running("sleep 314.5"):
        os.kill(pid, signal.SIGKILL)

    jobs.runtime = start_runtime(folder=jobs.runtime.folder, **environment_of(models))
    events = checked([event for _, event in jobs.runtime.stream("POST", "/invocations", asked)])

    assert end_of(events) == ("RUN_ERROR", "interrupted")
    assert "not known" in results_of(events)[-1]["error"]
    result = jobs.result
    assert (result["status"], result["error"]) == ("error", "the container was restarted while the job was carried out")
    assert [each["success"] for each in result["shell_results"]] == [True, False]
    assert "not known" in result["shell_results"][1]["error"]
    assert (jobs.output / "done.txt").read_text() == "done\n"
    assert not (jobs.output / "never").exists()
    assert len(models.received) == 1


def test_sigterm_leaves_a_result(start_runtime, models, eventually):
    models.add(Turn(text=plan(shell("touch begun; sleep 315.5"))))
    jobs = Jobs(start_runtime(**environment_of(models)))
    _, stream = jobs.begin()
    next(stream)
    eventually(lambda: (jobs.output / "begun").exists())

    jobs.runtime.stop()

    assert end_of([event for _, event in stream]) == ("RUN_ERROR", "interrupted")
    assert (jobs.result["status"], jobs.result["error"]) == ("error", "the container was stopped during this run")
    assert running("sleep 315.5") == []


def test_limits_end_a_job_with_its_reason(jobs, models):
    models.add(
        Turn(text=plan(shell("exit 1")), cost_usd=0.7),
        Turn(text=plan(shell("echo a"), python("print(1)"))), Turn(text=plan(shell("sleep 316.5"))),
    )  # fmt: skip

    cost, _ = jobs.run(limits={"cost_usd": 0.6})
    cost_result = jobs.result
    steps, _ = jobs.run(limits={"steps": 2})
    steps_result = jobs.result
    wall, _ = jobs.run(limits={"wall_s": 0.5})

    assert end_of(cost) == ("RUN_ERROR", "cost_limit")
    assert "its limit is 0.6" in cost_result["error"]
    assert cost_result["usage"]["cost_usd"] == 0.7
    assert end_of(steps) == ("RUN_ERROR", "step_limit")
    assert (len(steps_result["shell_results"]), len(steps_result["python_results"])) == (1, 0)
    assert end_of(wall) == ("RUN_ERROR", "timeout")
    assert (jobs.result["status"], jobs.result["error"]) == ("error", "the job took longer than 0.5 s")
    assert running("sleep 316.5") == []


def test_a_limit_of_steps_that_the_actions_fit_is_no_reason_to_fail(jobs, models):
    models.add(Turn(text=plan(shell("echo a"))))

    events, _ = jobs.run(limits={"steps": 2})

    assert end_of(events) == ("RUN_FINISHED", None)
    assert len(steps_of(events)) == 2


def test_a_job_that_spoils_its_result_is_no_complete_one(jobs, models):
    models.add(Turn(text=plan(shell("rm result.json; mkdir result.json; touch result.json/x"))))

    events, log = jobs.run()

    assert end_of(events) == ("RUN_ERROR", "error")
    assert "result.json is a folder" in events[-1]["message"]
    assert "can't be written" in log


def test_the_user_s_files_are_named_to_the_model_and_the_runtime_s_are_not(jobs, models):
    (jobs.runtime.workspace / "data.csv").write_text("1,2\n")
    (jobs.runtime.workspace / ".job").mkdir(exist_ok=True)
    models.add(Turn(text=plan(shell("cat ../data.csv"))))

    jobs.run()

    said = models.received[0].body["messages"][0]["content"]
    assert "data.csv" in said
    assert ".job" not in said
    assert ".agentainer" not in said
    assert f"Actions begin in {jobs.output}." in said
    assert jobs.result["shell_results"][0]["output"] == "1,2\n"


@pytest.mark.parametrize("output_dir", ["/etc", "../out", ".", ".agentainer/x", "out/../.."])
def test_an_output_folder_outside_of_the_workspace_is_refused(jobs, models, output_dir):
    events, _ = jobs.run(job={"output_dir": output_dir})

    assert end_of(events) == ("RUN_ERROR", "error")
    assert models.received == []


@pytest.mark.parametrize(
    "job", ["x", {}, {"id": ""}, {"id": "a\nb"}, {"id": "a", "attempt": 0}, {"id": "a", "output_dir": 1}]
)
def test_a_job_that_is_none_is_a_bad_request(jobs, job):
    asked = run_input()
    asked["forwardedProps"]["job"] = job

    status, answer = jobs.runtime.ask("POST", "/invocations", asked)

    assert status == 400
    assert "forwardedProps.job" in answer["error"]


def test_a_command_policy_holds_for_jobs_where_one_is_set(start_runtime, models):
    jobs = Jobs(start_runtime(**environment_of(models, AGENT_COMMANDS="list", AGENT_COMMANDS_ALLOWED="-python3")))
    models.add(Turn(text=plan(shell("bash -c true"), shell("echo a"), python("print(1)"))), Turn(text=plan()))

    events, _ = jobs.run()

    assert ["not allowed" in each["stderr"] for each in results_of(events)] == [True, False, True]


def test_what_a_job_asks_the_gateway_is_counted_for_its_run(start_runtime, models):
    gateway = models.base_url.removesuffix("/v1")  # as a provider the server refuses who says that
    jobs = Jobs(start_runtime(**environment_of(models, AGENTAINER_URL=gateway)))

    events, _ = jobs.run()

    assert models.received[0].headers["x-agentainer-run-id"] == events[0]["runId"]


def test_without_a_model_an_echo_is_done_and_the_script_is_called_so(start_runtime):
    jobs = Jobs(start_runtime(AGENT_MODEL=""))

    events, log = jobs.run("echo Hello World")

    assert end_of(events) == ("RUN_FINISHED", None)
    assert (jobs.result["status"], jobs.result["model"]) == ("complete", "script")
    assert "No model analysed this task" in jobs.result["note"]
    assert jobs.result["shell_results"][0]["output"] == "Hello World\n"
    assert log.count("Hello World") == 2
    refused, _ = jobs.run("echo $(touch canary)")
    assert end_of(refused) == ("RUN_ERROR", "model_error")
    assert "no model is configured" in jobs.result["error"]
    assert not list(jobs.runtime.workspace.rglob("canary"))


def test_the_echo_script_says_any_prompt_and_a_script_that_is_none_is_said(start_runtime):
    jobs = Jobs(start_runtime(AGENT_MODEL="script/echo.yaml"))

    events, _ = jobs.run("-n it's $(touch canary)\nand more")

    assert end_of(events) == ("RUN_FINISHED", None)
    assert jobs.result["shell_results"][0]["output"] == "-n it's $(touch canary)\nand more\n"
    assert jobs.result["model"] == "script/echo.yaml"
    events, log = jobs.run("x", model="script/none.yaml")
    assert end_of(events) == ("RUN_ERROR", "model_error")
    assert "there is no file none.yaml" in jobs.result["error"]
    assert "Starting agent for job" in log


def test_the_example_of_a_job_makes_its_two_files(start_runtime):
    turns = yaml.safe_load((Path(ROOT) / "examples/jobs/report.yaml").read_text())
    jobs = Jobs(start_runtime(turns))

    events, _ = jobs.run("Which letters do programs begin with? Write a report.")

    assert end_of(events) == ("RUN_FINISHED", None), jobs.result
    assert [file["path"] for file in jobs.result["files"]] == ["letters.txt", "report.md"]
    assert (jobs.output / "report.md").read_text().startswith("# Programs by their first letter\n\n- ")


def running(line):
    """Return the processes with these words as their command line."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            except OSError:
                continue
            if b" ".join(words) == line.encode():
                found.append(int(path.name))
    return found
