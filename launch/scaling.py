r"""How far data-parallel training would scale, on paper; prints scaling.md.

    python launch/scaling.py > launch/scaling.md
    python launch/scaling.py --config configs/dcgan.py --images 64 \
      --step-ms 2.5 [--config.FIELD=VALUE ...]

Nothing is trained: the step is compiled for so many simulated CPU devices, and
what they send is read from the program. A step on the machine at hand is
measured. --step-ms is what one chip takes for a step of so many --images;
without it, what its arithmetic would take at --share of the chip's peak.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import sys

from jaxfake import errors
from jaxfake.benchmarks import scaling
from jaxfake.evaluation import report
from jaxfake.runtime import provenance, xla

RESNET50 = ["--config.model.name=resnet50"]
CASES = [  # A name, a configuration, its flags, images a chip.
  ("DCGAN, 64 px", "configs/dcgan.py", [], (64, 512)),
  ("ResNet-50, 96 px", "configs/classifier.py", RESNET50, (32, 256)),
]
SYSTEMS = [
  scaling.System(
    "this machine",
    flops=None,
    host=1,
    inside=scaling.Speed(1.25e9, 1.25e9),
    beyond=scaling.Speed(1.25e9, 1.25e9),
    hop=30e-6,
  ),
  scaling.System(
    "H100",
    flops=494e12,
    host=8,
    inside=scaling.Speed(450e9, 450e9),
    beyond=scaling.Speed(50e9, 400e9),
    hop=3e-6,
  ),
  scaling.System(
    "TPU v5p",
    flops=459e12,
    host=1,
    inside=scaling.Speed(100e9, 600e9),
    beyond=scaling.Speed(100e9, 600e9),
    hop=1e-6,
  ),
]
TEXT = """\
# Scaling, on paper

No such machines were at hand. What a chip computes and sends in a step was read
from the program that XLA compiled for so many simulated CPU devices; what it
would take follows from the assumptions below. Measured is a step on the machine
at hand. Made by

```
python launch/scaling.py{arguments} > launch/scaling.md
```

Every chip has the same number of images, so the batch grows with the chips.
Each sums its gradients with all others' (large), and for batch norm, whose
statistics are those of the whole batch, and the losses it sums a few kB at a
time (small: under 64 kB). The discriminator's gradients on originals and on
fakes are summed apart. Neither number nor bytes depend on how many chips there
are (tests look at 2, 4 and 8 too); sent is what a ring of them makes of it,
2(n-1)/n of the bytes.

{program}

Efficiency is the share of linear speed that is left. At worst chips wait for
all that they send, over the slower of the speeds below. At best they send
gradients while they compute, over the faster. For batch norm's sums they wait
in both.

{prediction}

What is assumed, not known:

- One chip's step takes {step}.
  A slower step makes every percentage better.
- This machine: {machine};
  many of them, joined by 10 Gb/s Ethernet, 30 us a hop.
- H100: 494 TFLOP/s (TF32, dense); within a host of 8 450 GB/s (NVLink, half of
  the data sheet's 900 GB/s, which counts both ways); beyond it 50 GB/s, where a
  ring passes through one 400 Gb/s card, to 400 GB/s, where it is spread over
  all 8 that a DGX H100 has; 3 us a hop.
- TPU v5p: 459 TFLOP/s (bfloat16); 100 GB/s, one of a chip's six links, to 600,
  all six, one way, of the 1,200 GB/s in both that Google's documentation gives;
  1 us a hop.
- A sum takes 2 log2(n) hops, to the root of a tree and back. The time of a hop
  is a round figure, and where worst and best are both low it decides: the
  number of sums is what costs, and more images a chip help.
- Compilers for GPU and TPU join or split sums otherwise than the one for CPU,
  and count other FLOP. Reading data and saving cost nothing here.
"""


def count(text: str) -> int:
  if (number := int(text)) < 1:
    raise ValueError
  return number


def programs(name: str, images: int, steps: list[scaling.Step]):
  for step in steps:
    large, small = step.large(), step.small()
    total = sum(x.bytes for x in step.sends)
    sent = sum(x.sent(step.chips) for x in step.sends)
    yield {
      "program": name,
      "images a chip": images,
      "chips": step.chips,
      "GFLOP a chip": f"{step.flops / 1e9:.1f}",
      "large sums": len(large),
      "small sums": len(small),
      "MB summed": f"{total / 1e6:.2f}",
      "MB sent by a chip": f"{sent / 1e6:.2f}",
      "parameters": report.count(sum(step.parameters.values())),
    }


def predictions(name, images, steps, here: float, flags):
  for system in SYSTEMS:
    seconds = here
    if system.flops and not flags.step_ms:
      seconds = steps[0].flops / (flags.share * system.flops)
    yield {
      "program": name,
      "images a chip": images,
      "system": system.name,
      "ms a step": f"{seconds * 1e3:.2f}",
    } | {
      f"{step.chips} chips": "{:.0%} to {:.0%}".format(
        *scaling.efficiency(step, system, seconds)
      )
      for step in steps
      if step.chips > 1
    }


def apart(fn, *args):
  """fn(*args) in a process of its own: JAX can be given simulated devices but
  once in one."""
  spawn = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
    return pool.submit(fn, *args).result()


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", metavar="FILE[:VARIANT]")
  parser.add_argument("--images", type=count, default=64)
  parser.add_argument("--chips", type=count, nargs="+", default=[8, 64, 512])
  parser.add_argument("--step-ms", type=float)
  parser.add_argument("--share", type=float, default=0.3)
  args, flags = parser.parse_known_args(argv)
  cases = CASES
  if args.config:
    cases = [(args.config, args.config, flags, (args.images,))]
  elif argv:
    parser.error("no --config: without one there are no other flags")
  sent, predicted = [], []
  for name, config, flags, batches in cases:
    for images in batches:
      steps = []
      for chips in args.chips:
        print(f"{name}, {images} images, {chips} chips", file=sys.stderr)
        steps.append(apart(scaling.compiled, config, flags, images, chips))
      if args.step_ms:
        here = args.step_ms / 1e3
      else:
        print(f"{name}, {images} images, a step here", file=sys.stderr)
        here = apart(scaling.measured, config, flags, images)
      sent += programs(name, images, steps)
      predicted += predictions(name, images, steps, here, args)
  step = f"as long as its FLOP at {args.share:.0%} of the chip's peak would"
  machine = f"{os.cpu_count()} CPUs, {provenance.cpu_name()}, its step"
  if args.step_ms:
    step, machine = f"{args.step_ms} ms, as given", f"{machine} as given"
  else:
    machine += " measured, the median of five"
  text = TEXT.format(
    arguments="".join(f" {x}" for x in argv),
    program=report.markdown(sent),
    prediction=report.markdown(predicted),
    step=step,
    machine=machine,
  )
  print(text, end="")
  return 0


if __name__ == "__main__":
  xla.tune_allocator()  # For the processes that measure a step, too.
  try:
    sys.exit(main(sys.argv[1:]))
  except errors.UserError as error:
    print(f"scaling.py: {error}", file=sys.stderr)
    sys.exit(2)
