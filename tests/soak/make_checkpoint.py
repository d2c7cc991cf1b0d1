"""Write a checkpoint of SD 1.5's names and shapes with random values, by ComfyUI's own classes.

python make_checkpoint.py COMFYUI_FOLDER FILE
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(comfyui: str, path: str) -> None:
    """Build the parts, scale their values down, and save them under SD 1.5's names."""
    sys.path.insert(0, comfyui)
    sys.argv = ["main.py", "--cpu"]
    import torch

    torch.manual_seed(0)
    import comfy.options  # type: ignore[import-not-found]

    comfy.options.enable_args_parsing()
    from comfy import sd1_clip, supported_models  # type: ignore[import-not-found]
    from comfy.ldm.models.autoencoder import AutoencoderKL  # type: ignore[import-not-found]
    from safetensors.torch import save_file

    unet = {
        **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320},
        **{"num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "num_heads": 8},
        **{"transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1},
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        **{"context_dim": 768, "use_spatial_transformer": True, "legacy": False},
        **{"adm_in_channels": None, "use_linear_in_transformer": False, "use_checkpoint": False},
        **{"use_temporal_attention": False, "dtype": torch.float32},
    }
    model = supported_models.SD15(unet).get_model({}).diffusion_model
    text = sd1_clip.SD1ClipModel().clip_l.transformer
    vae = AutoencoderKL(
        embed_dim=4,
        ddconfig={
            **{"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3},
            **{"out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2},
            **{"attn_resolutions": [], "dropout": 0.0},
        },
    )
    prefixes = {
        "model.diffusion_model.": model,
        "cond_stage_model.transformer.": text,
        "first_stage_model.": vae,
    }
    state = {}
    for prefix, part in prefixes.items():
        for name, tensor in part.state_dict().items():
            values = torch.empty(tensor.shape)
            if not tensor.is_floating_point():
                values = torch.arange(tensor.numel()).reshape(tensor.shape)
            elif tensor.ndim > 1:
                values.normal_(0.0, tensor[0].numel() ** -0.5)
            else:
                values.fill_(1.0 if name.endswith("weight") else 0.0)
            state[prefix + name] = values.half() if values.is_floating_point() else values
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
