"""One run in several processes: who started them, who they are, how they end.

Importing this imports no JAX. Nothing is asked of the user where a launcher
says all by its environment: Slurm's srun, Open MPI, a Cloud TPU, an Indexed Job
of Kubernetes, or launch/multiprocess.sh. A process alone, such as a shell
inside a Slurm allocation, stays alone.
"""

from collections.abc import Callable, Iterator
import contextlib
import gc
import importlib.util
import os
import signal
import socket
import sys
import time
import traceback
from typing import Any

from jaxfake import errors
from jaxfake.runtime import xla

# Seconds without a sign of life after which JAX ends the other processes, with
# a message that names the dead one. JAX's own choice is 100.
HEARTBEAT = 30
# New objects after which Python looks for garbage among the youngest, and how
# many such looks go into one at the older. Importing and tracing make millions
# that stay: Python's 700 takes 5 to 10 % of a short command's time.
GARBAGE = 50_000, 20, 20
BY_HAND = "JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "JAX_COORDINATOR_ADDRESS"

_joined = False  # Whether this process is one of several.


def launcher(env: dict) -> dict | None:
  """What jax.distributed.initialize is to be told; None for a process alone.

  What it leaves out, JAX finds by itself. Raises ConfigError where the
  environment says half of it.
  """
  if env.get("JAX_NUM_PROCESSES") == "1":
    return None
  if "JAX_PROCESS_ID" in env or "JAX_NUM_PROCESSES" in env:
    if missing := [name for name in BY_HAND if name not in env]:
      raise errors.ConfigError(
        f"of {', '.join(BY_HAND)} there is no {' and no '.join(missing)}:"
        " expected all three, or none"
      )
    return _numbered(env, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
  # Of this step, not of the job: a shell in an allocation of 8 tasks is 1.
  if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in env:
    settings = _numbered(env, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    # JAX would take the GPU of the task's number on its node, also from a task
    # that is alone there or sees no GPU but its own.
    alone = env["SLURM_STEP_NUM_TASKS"] == env.get("SLURM_STEP_NUM_NODES")
    own = alone or "SLURM_GPUS_PER_TASK" in env
    devices = {"local_device_ids": []} if own else {}  # []: all it can see.
    devices = {} if "JAX_LOCAL_DEVICE_IDS" in env else devices
    return settings | devices | {"cluster_detection_method": "slurm"}
  if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
    settings = _numbered(env, "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    if "OMPI_MCA_orte_hnp_uri" in env or "JAX_COORDINATOR_ADDRESS" in env:
      return settings
    if importlib.util.find_spec("mpi4py"):
      return settings | {"cluster_detection_method": "mpi4py"}
    raise errors.ConfigError(
      "this mpirun does not say where its first process is: pip install mpi4py,"
      " or set JAX_COORDINATOR_ADDRESS to HOST:PORT on the host of rank 0"
    )
  # JAX sets this as it is imported where it finds the chips and libtpu.
  platforms = env.get("JAX_PLATFORMS", "tpu")
  if "TPU_ML_PLATFORM" in env and "tpu" in platforms:
    return {}
  # Every pod has the first; the second is an Indexed Job's.
  if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
    if importlib.util.find_spec("kubernetes") is None:
      raise errors.ConfigError(
        "an Indexed Job of Kubernetes: pip install 'jax[k8s]' so that JAX finds"
        f" its pods, or set {', '.join(BY_HAND)}; JAX_NUM_PROCESSES=1 where"
        " each pod is a run of its own"
      )
    return {}
  return None


def _numbered(env: dict, count: str, index: str) -> dict:
  try:
    settings = {"num_processes": int(env[count]), "process_id": int(env[index])}
  except ValueError as error:
    raise errors.ConfigError(
      f"{count}={env[count]}, {index}={env[index]}: expected whole numbers"
    ) from error
  if settings["process_id"] not in range(settings["num_processes"]):
    raise errors.ConfigError(
      f"{index} is {env[index]}: expected 0 to {count} - 1, of {env[count]}"
    )
  return settings


def join() -> None:
  """Joins the other processes where a launcher started several; only the first
  then speaks.

  Call it before anything is computed. Raises RunError where they do not come,
  ConfigError where there are no such devices as the environment asks for.
  """
  global _joined
  import jax

  from jaxfake.runtime import progress

  settings = launcher(dict(os.environ))
  if settings is None:
    xla.require_devices()
    return
  try:
    jax.distributed.initialize(**settings, heartbeat_timeout_seconds=HEARTBEAT)
  except Exception as error:  # Of the launcher's finder, of many kinds.
    raise errors.RunError(
      f"{socket.gethostname()} could not join the run: {_first_line(error)}"
    ) from error
  xla.require_devices()
  _joined = jax.process_count() > 1
  progress.quiet = jax.process_index() > 0


def together(prepare: Callable) -> Any:
  """Returns prepare() when all processes have; where it fails on one of them,
  all raise, lest the others wait for it."""
  import jax
  from jax.experimental import multihost_utils
  import numpy as np

  prepared, problem = None, None
  try:
    prepared = prepare()
  except errors.UserError as error:
    problem = error
  if jax.process_count() > 1:
    failed = multihost_utils.process_allgather(np.int32(problem is not None))
    if failed.any() and problem is None:
      problem = errors.UserError("another process cannot start: it says why")
  if problem:
    raise problem
  return prepared


def census(batch_size: int) -> str:
  """A line for each process: where it runs, with what, on which rows."""
  import jax
  from jax.experimental import multihost_utils
  import numpy as np

  count, held = jax.process_count(), jax.local_device_count()
  if count == 1:
    return ""
  mine = np.zeros(68, np.uint8)
  name = socket.gethostname().encode()[:64]
  mine[: len(name)] = np.frombuffer(name, np.uint8)
  mine[64:] = np.frombuffer(np.int32(held).tobytes(), np.uint8)
  rows = batch_size // count
  lines = [
    f"  process {p} on {bytes(row[:64]).rstrip(bytes(1)).decode()}:"
    f" {np.frombuffer(row[64:].tobytes(), np.int32)[0]} device(s), rows"
    f" {p * rows} to {(p + 1) * rows - 1}"
    for p, row in enumerate(multihost_utils.process_allgather(mine))
  ]
  return "\n" + "\n".join(lines)


@contextlib.contextmanager
def leaving_on_sigterm(again: str = "the same command") -> Iterator[None]:
  """Before and after the steps, where nothing is to be saved, SIGTERM ends the
  process with the code that says: again. (JAX's own handler swallows it.)"""

  def stop(*_):
    os.write(2, f"\nstopping: {again} continues\n".encode())
    raise SystemExit(errors.PREEMPTED)

  before = signal.signal(signal.SIGTERM, stop)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def exit_code(
  program: str, work: Callable[[], int], again: str = "the same command"
) -> int:
  """What `work()` returns, or the code of its end, which is said in a line;
  `again` is what goes on where it was interrupted."""
  gc.set_threshold(*GARBAGE)
  try:
    with leaving_on_sigterm(again):
      return work()
  except errors.UserError as error:
    print(f"{program}: {error}", file=sys.stderr)
    return errors.MISTAKE
  except KeyboardInterrupt:
    print(f"{program}: interrupted; {again} goes on", file=sys.stderr)
    return errors.INTERRUPTED
  except Exception as error:
    return failed(error, program)


def failed(error: Exception, program: str) -> int:
  """Says why a run ends here and returns its exit code, or raises the error
  again where it is one that nobody foresaw.

  One of several processes does not return, but ends: it would wait for the
  others, and they for it.
  """
  if _joined and _of_the_wire(error):
    print(
      f"{program}: {socket.gethostname()} lost touch with another process"
      f" ({_first_line(error)}). JAX says in {HEARTBEAT} s which one is dead."
      " What was saved is kept; the same command continues",
      file=sys.stderr,
      flush=True,
    )
    time.sleep(2 * HEARTBEAT)  # JAX ends us before, naming the dead process.
  elif isinstance(error, errors.RunError | OSError):  # A full disk, for one.
    print(f"{program}: {error}", file=sys.stderr)
  elif _joined:
    traceback.print_exception(error)
  else:
    raise error
  if _joined and not isinstance(error, errors.DivergedError):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(errors.FAILED)
  return errors.FAILED  # Of a run that diverged, all processes come by here.


def _of_the_wire(error: Exception) -> bool:
  """Whether it says that another process does not answer."""
  signs = "gloo", "nccl", "unavailable", "deadline_exceeded", "barrier"
  return any(sign in str(error).lower() for sign in signs)


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
