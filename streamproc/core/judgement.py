"""What a release says of how its scores become mentions."""

from streamproc.core.calibration import Calibration
from streamproc.core.rule import MentionRule
from streamproc.core.span import Value


class Judgement(Value, frozen=True, kw_only=True):
    """Fitted together, since the rule weighs the probabilities that the calibration gives. A release has one for
    streams whose shelf is known, and may have another for those without, in which all of the catalogue may be told:
    every page that is near competes there, and none stands for what this room does not sell."""

    calibration: Calibration = Calibration()
    mention_rule: MentionRule = MentionRule()
