"""Online heads: a last layer that learns sample by sample in few bytes, and can forget."""

from unlearnkit.online.exact_learners import ClassMeans as ClassMeans
from unlearnkit.online.exact_learners import RecursiveLeastSquares as RecursiveLeastSquares
from unlearnkit.online.gradient_learners import ConsolidatedWeights as ConsolidatedWeights
from unlearnkit.online.gradient_learners import LastLayerSGD as LastLayerSGD
from unlearnkit.online.gradient_learners import (
    LearningWithoutForgetting as LearningWithoutForgetting,
)
from unlearnkit.online.layer_export import ExportedLayer as ExportedLayer
from unlearnkit.online.online_head import HeadForgetting as HeadForgetting
from unlearnkit.online.online_head import OnlineHead as OnlineHead
from unlearnkit.online.replay_memory import ReplayMemory as ReplayMemory
