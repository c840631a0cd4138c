"""Write a trained model as a folder that diffusers loads: PixArtSigmaPipeline, without a VAE."""

from __future__ import annotations

from pathlib import Path

import torch

from train.sample import Trained


def export_pipeline(trained: Trained, folder: Path | str) -> Path:
    """Save text encoder, tokenizer, transformer and scheduler for `DiffusionPipeline`.

    The model works on pixels, so there is no VAE. The stock pipeline draws with it when told so:

        pipe = DiffusionPipeline.from_pretrained(folder, vae=None)
        x = pipe(prompt, output_type="latent", height=8 * R, width=8 * R, num_inference_steps=12,
                 guidance_scale=2.5, use_resolution_binning=False, clean_caption=False,
                 max_sequence_length=T).images          # (B, 3, R, R) in -1..1

    Without a VAE the pipeline assumes a scale factor of 8, hence the height. The scheduler is
    first-order DPM-Solver++ over flow times, which is the Euler step of `train.sample`, at the
    same timesteps but for rounding to whole thousandths. Weights are float32.
    """
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline

    folder = Path(folder)
    settings = trained.settings
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="sample" if settings.prediction == "x0" else "flow_prediction",
        use_flow_sigmas=True,
        flow_shift=settings.sampling_shift,
        solver_order=1,
        algorithm_type="dpmsolver++",
        final_sigmas_type="zero",
    )
    # A pipeline may move its parts; the caller's model keeps its precision and device.
    text_encoder, transformer = trained.model.text_encoder, trained.model.transformer
    dtype, device = trained.dtype, trained.device
    try:
        pipeline = PixArtSigmaPipeline(
            tokenizer=trained.tokenizer,
            text_encoder=text_encoder.to("cpu", torch.float32),
            vae=None,
            transformer=transformer.to("cpu", torch.float32),
            scheduler=scheduler,
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
    finally:
        trained.model.to(device, dtype)
    return folder
