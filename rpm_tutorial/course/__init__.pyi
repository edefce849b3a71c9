from . import (
    cli as cli,
    dashboard as dashboard,
    environment as environment,
    exercise as exercise,
    figures as figures,
    handouts as handouts,
    lessons as lessons,
    widgets as widgets,
)
