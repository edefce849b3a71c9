"""What the widgets show, a module per lesson: each a pure function from an immutable state to a `Figure`."""

from .lesson_01 import WorldState, likelihood
from .lesson_02 import ProofState, proof
from .lesson_03 import PriorState, prior_choice
from .lesson_04 import RetrievalState, retrieval
from .lesson_05 import BatchState, finite_batches
from .lesson_06 import TwistState, twisted
from .lesson_07 import UnfoldingState, unfolding
from .lesson_09 import ForecastState, forecast
from .lesson_10 import RestartState, restarts
from .lesson_11 import ConcentrationState, concentration
