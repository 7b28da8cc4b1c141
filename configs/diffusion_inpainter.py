r"""An inpainter at 64 px by diffusion (Saharia et al. 2022, Karras et al.
2022), on the phantom unless told otherwise: it puts nodules in, or takes out
what is in a region.

    python -m jaxfake.main --config configs/diffusion_inpainter.py:quick
    python -m jaxfake.main --config configs/diffusion_inpainter.py \
      --config.data.inpainting.fill=plain \
      --config.data.inpainting.real=chest_xray --config.data.dir=FOLDER

`:quick` is for people: minutes on two CPU cores. `:tiny` is for tests: seconds.
The whole one is for a GPU or TPU; it was not run.
"""

import pathlib
import runpy

HERE = pathlib.Path(__file__).parent


def sibling(name, arg):
  return runpy.run_path(str(HERE / name))["get_config"](arg)


def get_config(arg=""):
  quick, tiny = arg == "quick", arg == "tiny"
  c = sibling("edm.py", arg)  # Of the diffusion, all but what follows.
  c.task = "diffusion_inpainter"
  c.batch_size = 4 if tiny else 16 if quick else 64  # Over all devices.
  c.total_steps = 6 if tiny else 600 if quick else 50_000
  c.data = sibling("inpainter.py", arg).data
  c.sigma_data = 0.35  # Deviation in regions of chest_xray's windows.
  for name in ("parametrisation", "unlabelled", "only_class"):
    del c[name]
  for name in ("channels", "conditional"):
    del c.model[name]
  del c.sampler.guidance
  c.eval.images = 8 if tiny else 128 if quick else 1024
  return c


def sweep():
  yield {}
  for fill in ("nodule", "plain"):
    yield {"data.inpainting.fill": fill}
  for steps in (6, 12, 24):
    yield {"sampler.steps": steps}
  for sigma in (10.0, 80.0):
    yield {"sampler.sigma_max": sigma}
  for mean in (-1.8, -1.2, -0.6):
    yield {"noise.mean": mean}
  for lr in (5e-4, 1e-3, 2e-3):
    yield {"opt.lr": lr}
