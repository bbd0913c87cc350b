"""What worker processes need, imported once: by the process that they begin as copies of.

See ``local_processes`` in ``processes.py``. Nothing else imports this.
"""

import torch._dynamo
import torch.nn.utils  # noqa: F401
