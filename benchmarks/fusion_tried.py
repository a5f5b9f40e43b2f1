"""Settings that were tried, and parts taken away, each measured alone on the seed that settings were chosen on."""

TRIED: dict[str, list[list[str]]] = {
    "contrastive": [
        ["encoder_layers=1", "between=0.1", "temperature=0.1"],
        ["encoder_layers=1", "between=0.1"],
        ["encoder_layers=1", "temperature=0.1"],
        ["encoder_layers=1"],
        ["temperature=0.1"],
        ["between=0.1"],
        ["latent=128"],
        ["between=0"],
        ["alone=0"],
    ],
    "mfm": [["discriminative=0"], ["prior=0"], ["own=1"]],
    "interact": [
        ["pretraining=0"],
        ["pretraining=0", "hide=0.75"],
        ["layers=3"],
        ["input_dropout=0.3", "dropout=0.2"],
        ["latent=64"],
    ],
}
