"""One trainer for every family: turns, checkpoints that resume bit-exactly, a log, a live report.

>>> from triptych.learn.train import Trainer
>>> Trainer(max_epochs=1).settings.batch_size
128
"""

from triptych.learn.train.record import Moment
from triptych.learn.train.run import Run, open_run
from triptych.learn.train.settings import LogSettings, TrainSettings
from triptych.learn.train.trainer import Trainer

__all__ = ["LogSettings", "Moment", "Run", "TrainSettings", "Trainer", "open_run"]
