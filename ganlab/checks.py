"""What can't work is refused before anything is trained: each message names the key, what was given and the fix."""

from typing import Any


def check_game(gan: Any) -> None:
    """Checks a GAN's arguments; every part of it may add its own `check(gan)`, which raises ValueError.

    Raises:
        ValueError: what is wrong, and what to do
    """
    for key, value in (("n_critic", gan.every["G"]), ("micro_batches", gan.micro_batches)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{key}={value!r}: must be a whole number of at least 1")
    for key, value in (("log_every", gan.log_every), ("clip_norm", gan.clip_norm)):
        if value is not None and value <= 0:
            raise ValueError(f"{key}={value!r}: must be above 0")
    if gan.share_fake and gan.micro_batches > 1:
        raise ValueError(
            "share_fake=true keeps one graph of the fakes for both players, which can't be split into "
            f"micro_batches={gan.micro_batches}: set share_fake=false"
        )
    for name, term in gan.terms.items():
        if name == "adversarial":
            raise ValueError("terms.adversarial: that name is the loss's; call the term something else")
        if term.player not in gan.players:
            raise ValueError(f"terms.{name} is D's and there is no discriminator: remove it (~terms.{name})")
    for player in gan.players:
        if player not in gan.optimizer:
            raise ValueError(f"optimizer has no entry for {player}: give one for both players, or one each for G and D")
        if gan.loss is None and all(term.player != player for term in gan.terms.values()):
            raise ValueError(f"{player} has nothing to minimise: give a loss, or a term with player={player}")
    for part in (gan.task, gan.loss, *gan.terms.values(), gan.augment):
        if hasattr(part, "check"):
            part.check(gan)
