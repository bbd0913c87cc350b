"""What worker processes need, imported once by the server that they are forked from.

See ``start_server`` in ``worker_pool.py``. Nothing else imports this.
"""

import torch._dynamo
import torch.nn.utils  # noqa: F401
