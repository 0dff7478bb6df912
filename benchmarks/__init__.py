"""What the project's speed and error rates are measured with; `uoisc benchmark` is the door.

One module, one thing measured. Timed figures come as ratios against a peer of the same run.
"""

import semantic  # noqa: F401 - before torch: it sets how torch's threads wait
