"""Parts of the models taken away, each alone, on the seed that settings were chosen on."""

TRIED: dict[str, list[list[str]]] = {
    "contrastive": [["between=0"], ["alone=0"]],
    "mfm": [["discriminative=0"], ["prior=0"], ["own=1"]],
    "interact": [
        ["pretraining=0"],
        ["pretraining=0", "hide=0.75"],
        ["layers=3"],
        ["input_dropout=0.3", "dropout=0.2"],
        ["latent=64"],
    ],
}
