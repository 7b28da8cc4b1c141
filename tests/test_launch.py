"""The pages of launch/, as far as they can be tried without their systems."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import jsonschema
from kubeflow_trainer_api import models
from places import ROOT
import pytest
import yaml

from jaxfake import configuration

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh")) + sorted(LAUNCH.glob("*.sbatch"))


def program(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f"#!/usr/bin/env bash\n{text}\n")
  path.chmod(0o755)


def run(*command, path: pathlib.Path, **env):
  """With the programs in `path` before all others."""
  return subprocess.run(
    command,
    env=os.environ | {"PATH": f"{path}:{os.environ['PATH']}"} | env,
    capture_output=True,
    text=True,
    timeout=60,
  )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda x: x.name)
def test_bash_can_read_it(script):
  subprocess.run(["bash", "-n", script], check=True)


# local.sh


@pytest.fixture
def checkout(tmp_path):
  """A folder like a checkout, and a python3 that makes a .venv whose programs
  only note what they were told."""
  place = tmp_path / "checkout"
  (place / "launch").mkdir(parents=True)
  shutil.copy(LAUNCH / "local.sh", place / "launch")
  note = f'echo "$(basename "$0") $*" >> {tmp_path}/told'
  program(
    tmp_path / "bin/python3",
    f"""{note}
if [[ $1 == -m ]]; then
  mkdir -p .venv/bin
  cp {tmp_path}/noting .venv/bin/python
  cp {tmp_path}/noting .venv/bin/pip
fi""",
  )
  program(
    tmp_path / "noting",
    f"""{note}
if [[ $1 == -c ]]; then echo {place}/runs/x; fi
if [[ $2 == jaxfake.main ]]; then
  mkdir -p runs/x && touch "runs/x/${{REPORT:-report.html}}"
  exit "${{CODE:-0}}"
fi""",
  )
  return place


def told(tmp_path):
  text = (tmp_path / "told").read_text()
  # The programs of -c are no commands.
  return [
    x for x in text.splitlines() if re.match(r"(pip|python3?) -?m|pip", x)
  ]


def local(tmp_path, *arguments, **env):
  script = tmp_path / "checkout/launch/local.sh"
  return run(script, *arguments, path=tmp_path / "bin", **env)


def test_local_installs_runs_and_says_where_the_report_is(tmp_path, checkout):
  program(tmp_path / "bin/nvidia-smi", "exit 9")
  done = local(tmp_path)
  assert done.returncode == 0, done.stderr
  assert told(tmp_path) == [
    "python3 -m venv .venv",
    "pip install --quiet -e .",
    "python -m jaxfake.main --config configs/study.py:quick",
  ]
  assert done.stdout == f"The report is {checkout}/runs/x/report.html\n"


def test_local_takes_arguments_and_a_gpu(tmp_path, checkout):
  program(tmp_path / "bin/nvidia-smi", "exit 0")
  flags = ["--config", "configs/dcgan.py", "--config.data.dir=a folder"]
  done = local(tmp_path, *flags, REPORT="result.json")
  assert told(tmp_path)[1:] == [
    "pip install --quiet -e .[cuda]",
    "python -m jaxfake.main " + " ".join(flags),
  ]
  assert done.stdout == f"The report is {checkout}/runs/x/result.json\n"


def test_local_ends_as_the_run_did(tmp_path, checkout):
  done = local(tmp_path, CODE="75")
  assert done.returncode == 75
  assert "report" not in done.stdout


def test_local_says_what_python_it_needs(tmp_path, checkout):
  for name in ("python3", "python3.13", "python3.12", "python3.11"):
    program(tmp_path / "bin" / name, "exit 1")  # As one that is too old.
  done = local(tmp_path)
  assert done.returncode == 2
  assert "no Python of 3.11 or newer" in done.stderr


# tpu.sh

# As if this machine were the TPU's, with $PLACE as its home.
GCLOUD = """\
(IFS=$'\\t' && printf '%s\\0' "$*" >> "$PLACE/told")
for argument; do
  case $argument in
    --command=*) command=${argument#--command=} ;;
    *.bundle) cp "$argument" "$PLACE" ;;
  esac
done
export HOME=$PLACE
case "$*" in
  *" describe "*) exit "${FOUND:-1}" ;;
  *jaxfake.main*)
    cd && bash -c "$command" || exit
    code=$(head -n 1 codes)
    sed -i 1d codes
    exit "$code" ;;
  *gcsfuse*) cd && bash -c "$command" ;;
esac
"""


def tpu(tmp_path, *codes, **env):
  """tpu.sh where runs end with these codes: how it ended, what gcloud heard."""
  note = lambda name: (
    f'echo "{name} $*" >> "$PLACE/ran"; exit "${{INSTALLED:-0}}"'
  )
  program(tmp_path / "bin/gcloud", GCLOUD)
  for name in ("bin/gcsfuse", "bin/python3", ".local/bin/uv"):
    program(tmp_path / name, note(name))
  program(
    tmp_path / "jaxfake/.venv/bin/python", 'printf "<%s>" "$@" >> "$PLACE/ran"'
  )
  (tmp_path / "codes").write_text("".join(f"{x}\n" for x in codes))
  flags = ["--config", "configs/dcgan.py", "--config.data.dir=a folder's"]
  done = run(
    LAUNCH / "tpu.sh",
    *("us-west4-a", "my-runs", *flags),
    path=tmp_path / "bin",
    **{"PLACE": str(tmp_path), "TPU_NAME": "jaxfake-test"} | env,
  )
  calls = (tmp_path / "told").read_text().split("\0")[:-1]
  return done, [x.split("\t") for x in calls]


def verbs(calls):
  return " ".join(x[3] if x[0] == "compute" else x[2] for x in calls)


def test_tpu_is_made_used_and_deleted(tmp_path):
  done, calls = tpu(tmp_path, 0)
  assert done.returncode == 0, done.stderr
  assert verbs(calls) == ("describe describe create create scp ssh ssh delete")
  assert (tmp_path / "ran").read_text().splitlines() == [
    "bin/gcsfuse --metadata-cache-ttl-secs=0 my-runs runs",
    "bin/python3 -m pip install -q --user uv",
    ".local/bin/uv venv -q --python 3.13",
    ".local/bin/uv pip install -q -e .[tpu]",
    "<-m><jaxfake.main><--config><configs/dcgan.py>"
    "<--config.data.dir=a folder's>",
  ]
  assert (tmp_path / "jaxfake/configs/dcgan.py").is_file()


@pytest.mark.parametrize("code", [75, 255])
def test_tpu_that_is_taken_away_is_made_again(code, tmp_path):
  done, calls = tpu(tmp_path, code, 0)
  assert done.returncode == 0
  again = "create scp ssh ssh delete"
  assert verbs(calls).endswith(f"create {again} {again}")


@pytest.mark.parametrize("code", [1, 2])
def test_tpu_is_not_made_again_for_a_run_that_failed(code, tmp_path):
  done, calls = tpu(tmp_path, code)
  assert done.returncode == code
  assert verbs(calls).endswith("ssh ssh delete")


def test_tpu_is_deleted_where_installing_failed(tmp_path):
  done, calls = tpu(tmp_path, INSTALLED="3")
  assert done.returncode == 3
  assert verbs(calls).endswith("create scp ssh delete")


def test_tpu_of_the_same_name_is_left_alone(tmp_path):
  done, calls = tpu(tmp_path, FOUND="0")
  assert done.returncode == 2
  assert "jaxfake-test is there already" in done.stderr
  assert verbs(calls) == "describe"


def test_gcloud_knows_every_command(tmp_path):
  gcloud = shutil.which("gcloud")
  if gcloud is None:
    pytest.skip("no gcloud to ask")
  _, calls = tpu(tmp_path, 0, SPOT="1")
  # What runs on the hosts is not gcloud's to judge.
  texts = map(" ".join, calls)
  short = sorted({re.sub("(?s)(--command)=.*", r"\1=x", x) for x in texts})
  (tmp_path / "calls.json").write_text(
    json.dumps([{"command_string": f"gcloud {x}"} for x in short])
  )
  file = f"--commands-file={tmp_path}/calls.json"
  done = run(gcloud, "meta", "lint-gcloud-commands", file, path=tmp_path)
  answers = json.loads(done.stdout)
  assert len(answers) == len(short)
  for answer in answers:
    assert answer["success"], answer["error_message"]


# k8s.yaml and sky.yaml


def documents(name):
  return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def pod() -> str:
  """What a pod does."""
  (job,) = documents("k8s.yaml")[0]["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]["template"]["spec"]
  return spec["containers"][0]["args"][0]


def test_kubernetes_takes_its_objects():
  """What the models of Kubernetes and JobSet do not know or want otherwise
  does not come back from them as it was."""
  kinds = {
    "JobSet": models.JobsetV1alpha2JobSet,
    "PersistentVolumeClaim": models.IoK8sApiCoreV1PersistentVolumeClaim,
  }
  found = documents("k8s.yaml")
  assert [x["kind"] for x in found] == list(kinds)
  for document in found:
    model = kinds[document["kind"]]
    assert model.from_dict(document).to_dict() == document


KUBECTL = """\
for argument; do
  case $argument in
    --from-file=*)
      argument=${argument#*=}
      cat "${argument#*=}" > "$PLACE/maps/${argument%%=*}"
      ;;
    --from-literal=*) echo "${argument#*arguments=}" > "$PLACE/arguments" ;;
  esac
done
"""


def test_a_pod_runs_what_the_page_says(tmp_path):
  """The page's commands, then the container's, in a folder of this machine."""
  program(tmp_path / "bin/kubectl", KUBECTL)
  program(tmp_path / "bin/pip", 'echo "pip $*" >> "$PLACE/told"')
  program(tmp_path / "bin/python", 'echo "python $*" >> "$PLACE/told"')
  env = {"path": tmp_path / "bin", "PLACE": str(tmp_path)}
  (tmp_path / "maps").mkdir()
  text = (LAUNCH / "k8s.yaml").read_text()
  lines = re.findall(r"^#   (.*)$", text, re.M)
  page = "\n".join(lines).replace("/tmp", str(tmp_path))
  done = run("bash", "-euc", f"cd {ROOT}\n{page}", **env)
  assert done.returncode == 0, done.stderr
  parts = [tmp_path / f"maps/source.{i}" for i in range(3)]
  assert all(0 < x.stat().st_size < 2**20 * 3 / 4 for x in parts)  # In base64.

  script = re.sub(
    "(?<![.a-z])/(tmp|source|jaxfake)", rf"{tmp_path}/pod/\1", pod()
  )
  for folder in ("tmp", "source", "jaxfake/runs"):
    (tmp_path / "pod" / folder).mkdir(parents=True)
  for part in parts:
    shutil.copy(part, tmp_path / "pod/source")
  arguments = (tmp_path / "arguments").read_text().strip()
  done = run("bash", "-euc", script, ARGUMENTS=arguments, **env)
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "told").read_text() == (
    f"pip install -q -e .\npython -m jaxfake.main {arguments}\n"
  )
  head = lambda folder: subprocess.check_output(
    ["git", "rev-parse", "HEAD"], cwd=folder
  )
  assert head(tmp_path / "pod/jaxfake") == head(ROOT)
  config = arguments.removeprefix("--config ").partition(":")[0]
  assert (tmp_path / "pod/jaxfake" / config).is_file()


def test_pods_find_each_other_and_their_things():
  jobset, claim = documents("k8s.yaml")
  (job,) = jobset["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  template = spec["template"]["spec"]
  (container,) = template["containers"]
  env = {x["name"]: x.get("value") for x in container["env"]}
  assert spec["parallelism"] == spec["completions"]
  assert int(env["JAX_NUM_PROCESSES"]) == spec["parallelism"]
  name = jobset["metadata"]["name"]
  first = f"{name}-{job['name']}-0-0.{name}"
  assert env["JAX_COORDINATOR_ADDRESS"].startswith(f"{first}:")
  mounts = [x["name"] for x in container["volumeMounts"]]
  assert sorted(mounts) == sorted(x["name"] for x in template["volumes"])
  claims = [x.get("persistentVolumeClaim") for x in template["volumes"]]
  assert {"claimName": claim["metadata"]["name"]} in claims


def test_pods_are_started_anew_after_a_preemption_not_after_a_mistake():
  jobset, _ = documents("k8s.yaml")
  spec = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  actions = {
    code: rule["action"]
    for rule in spec["podFailurePolicy"]["rules"]
    for code in rule.get("onExitCodes", {}).get("values", ())
  }
  assert actions == {75: "Ignore", 2: "FailJob"}
  (rule,) = jobset["spec"]["failurePolicy"]["rules"]
  assert rule["action"] == "FailJobSet"
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_skypilot_takes_its_task():
  schema = json.loads((ROOT / "tests/sky_schema.json").read_text())
  (task,) = documents("sky.yaml")
  jsonschema.validate(task, schema)
  used = set(re.findall(r"\$\{?([A-Z]+)\b", json.dumps(task)))
  assert used == task["envs"].keys()


def test_a_sky_machine_runs_its_arguments(tmp_path):
  (task,) = documents("sky.yaml")
  for name in ("python3", "nvidia-smi"):
    program(tmp_path / "bin" / name, f'echo "{name} $*" >> "$PLACE/told"')
  program(tmp_path / ".venv/bin/python", 'echo "python $*" >> "$PLACE/told"')
  env = {"path": tmp_path / "bin", "PLACE": str(tmp_path)} | task["envs"]
  env["BUCKET"] = "my-runs"
  for step in ("setup", "run"):
    done = run("bash", "-c", f"cd {tmp_path}\n{task[step]}", **env)
    assert done.returncode == 0, done.stderr
  told = (tmp_path / "told").read_text().splitlines()
  assert "python3 -m uv pip install -q -e .[cuda]" in told
  argv = shlex.split(told[-1])
  assert argv[:3] == ["python", "-m", "jaxfake.main"]
  config, workdir = configuration.parse(argv[2:])
  assert (config.task, str(workdir)) == ("gan", "/runs/dcgan")
