"""Optimisers: each file is one, and the file's name is its name in `schedule.optimiser`. Each has

Config                                                       its own options, an `Options`
update(config, group, parameters, gradients, states)         change the parameters of a group in place, and their states

and, if it takes the gradient at other weights than those that it changes,

  ascent(config, gradients) -> list of tensors                 what is added to the parameters for a second gradient

group: `lr`, `weight_decay`, and the keys of the schedule that the optimiser follows. states: a dict for each parameter,
empty before its first step; it may hold tensors, numbers and None. A resume point keeps it, so a state must hold all
that outlives a step. A tensor called `step` stays on the CPU, every other one goes to the parameter's device.

torch is imported inside functions: Kedro reads Config also where nothing is trained. Use torch's functions, not the
classes of torch.optim: their first use imports the compiler (torch._dynamo), 1.4 s of a stage that compiles nothing.
"""

from collections.abc import Mapping
from typing import Any

from ltpipe.config.spec import Spec


class Options(Spec):
    """The options of an optimiser."""

    def follows(self) -> Mapping[str, Any]:
        """Return the keys of the schedule that the optimiser follows beside lr and weight_decay, with defaults."""
        return {}
