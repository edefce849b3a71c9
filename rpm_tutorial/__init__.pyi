from . import (
    chain as chain,
    checkpoints as checkpoints,
    critic_checks as critic_checks,
    critics as critics,
    datasets as datasets,
    derivation as derivation,
    distributed as distributed,
    encoders as encoders,
    estimators as estimators,
    evidence as evidence,
    finite as finite,
    gaussian as gaussian,
    labelled_evidence as labelled_evidence,
    objectives as objectives,
    priors as priors,
    probes as probes,
    shared_latent as shared_latent,
    training as training,
)
from .chain import GaussianChain as GaussianChain
from .checkpoints import (
    load_checkpoint as load_checkpoint,
    save_checkpoint as save_checkpoint,
)
from .course import (
    cli as cli,
    dashboard as dashboard,
    environment as environment,
    exercise as exercise,
    figures as figures,
    handouts as handouts,
    lessons as lessons,
    widgets as widgets,
)
from .course.dashboard import TrainingDashboard as TrainingDashboard
from .course.environment import (
    self_check as self_check,
    setup as setup,
    show_source as show_source,
)
from .course.report import (
    Report as Report,
    report as report,
)
from .course.widgets import explore as explore
from .critic_checks import (
    Check as Check,
    CriticReport as CriticReport,
    check_critic as check_critic,
)
from .critics import (
    Bilinear as Bilinear,
    LaplaceWalk as LaplaceWalk,
    LinearCritic as LinearCritic,
    LinearDynamics as LinearDynamics,
    LinearForm as LinearForm,
    RandomWalk as RandomWalk,
    Universal as Universal,
    VonMisesFisher as VonMisesFisher,
    WithBias as WithBias,
)
from .evidence import (
    Evidence as Evidence,
    SampledEvidence as SampledEvidence,
    dataset_evidence as dataset_evidence,
    sampled_evidence as sampled_evidence,
)
from .finite import (
    ELBO as ELBO,
    FiniteRPM as FiniteRPM,
)
from .labelled_evidence import (
    LabelEvidence as LabelEvidence,
    label_evidence as label_evidence,
)
from .objectives import (
    Objective as Objective,
    barber_agakov as barber_agakov,
    donsker_varadhan as donsker_varadhan,
    infonce as infonce,
    mutual_information as mutual_information,
    nwj as nwj,
    symmetric_infonce as symmetric_infonce,
)
from .shared_latent import SharedLatentRPM as SharedLatentRPM
from .training import (
    LogRow as LogRow,
    Trainer as Trainer,
    encode as encode,
    encoder_evidence as encoder_evidence,
    train as train,
)

__version__: str
