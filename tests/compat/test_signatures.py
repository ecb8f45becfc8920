"""Whatever the codebases' calls look like: their arguments, in their order, with their defaults.

The signatures are those of the originals, of which ``...`` is a default that is not used here. What
a drop-in takes besides can be left out.
"""

from __future__ import annotations

import inspect

import pytest

from ganloss_fast.compat import (
    audiocraft,
    basicsr,
    biggan,
    bigvgan,
    cut,
    cyclegan,
    dac,
    encodec,
    hifigan,
    latent_diffusion,
    lecam,
    llamagen,
    mmagic,
    mmgeneration,
    monai,
    parallel_wavegan,
    pix2pixhd,
    pytorch_gan,
    r3gan,
    seed_voken,
    spade,
    studiogan,
    stylegan2_ada,
    stylegan2_rosinality,
    stylegan3,
    taming,
    tf_gan,
    titok,
    torchgan,
    vits,
)

LABELS = "target_real_label=1.0, target_fake_label=0.0"
VALUES = "real_label_val=1.0, fake_label_val=0.0, loss_weight=1.0"
PATH = "fake_img, latents, mean_path_length, decay=0.01"
PENALTY = "discriminator, real_data, fake_data"
SIDES = "dis_fake, dis_real"
WEIGHTS = "real_weights=1.0, generated_weights=1.0"
LOGITS = "discriminator_real_outputs, discriminator_gen_outputs"
STYLEGAN = "style_mixing_prob={}, r1_gamma=10, pl_batch_shrink=2, pl_decay=0.01, pl_weight=2"

SIGNATURES = [
    (cyclegan.GANLoss, f"gan_mode=True, {LABELS}, tensor=..."),  # the older form's use_lsgan
    (cyclegan.GANLoss.forward, "self, prediction, target_is_real"),
    (
        cyclegan.cal_gradient_penalty,
        "netD, real_data, fake_data, device, type='mixed', constant=1.0, lambda_gp=10.0",
    ),
    (cut.GANLoss, f"gan_mode, {LABELS}"),
    (cut.GANLoss.forward, "self, prediction, target_is_real"),
    (pix2pixhd.GANLoss, f"use_lsgan=True, {LABELS}, tensor=..."),
    (pix2pixhd.GANLoss.forward, "self, input, target_is_real"),
    (pix2pixhd.VGGLoss, "gpu_ids=..."),
    (pix2pixhd.VGGLoss.forward, "self, x, y"),
    (spade.GANLoss, f"gan_mode, {LABELS}, tensor=..., opt=None"),
    (spade.GANLoss.forward, "self, input, target_is_real, for_discriminator=True"),
    (basicsr.GANLoss, f"gan_type, {VALUES}"),
    (basicsr.GANLoss.forward, "self, input, target_is_real, is_disc=False"),
    (basicsr.MultiScaleGANLoss, f"gan_type, {VALUES}"),
    (basicsr.MultiScaleGANLoss.forward, "self, input, target_is_real, is_disc=False"),
    (basicsr.r1_penalty, "real_pred, real_img"),
    (basicsr.g_path_regularize, PATH),
    (basicsr.gradient_penalty_loss, f"{PENALTY}, weight=None"),
    (mmagic.GANLoss, f"gan_type, {VALUES}"),
    (mmagic.GANLoss.forward, "self, input, target_is_real, is_disc=False, mask=None"),
    (mmagic.GradientPenaltyLoss, "loss_weight=1.0"),
    (mmagic.DiscShiftLoss, "loss_weight=0.1"),
    (mmagic.gradient_penalty_loss, f"{PENALTY}, mask=None, norm_mode='pixel'"),
    (
        mmagic.r1_gradient_penalty_loss,
        "discriminator, real_data, mask=None, norm_mode='pixel', loss_scaler=None, "
        "use_apex_amp=False",
    ),
    (
        mmagic.gen_path_regularizer,
        "generator, num_batches, mean_path_length, pl_batch_shrink=1, decay=0.01, weight=1.0, "
        "pl_batch_size=None, sync_mean_buffer=False, loss_scaler=None, use_apex_amp=False",
    ),
    (
        mmagic.R1GradientPenaltyComps,
        "loss_weight=1.0, norm_mode='pixel', interval=1, data_info=None, use_apex_amp=False, "
        "loss_name='loss_r1_gp'",
    ),
    (mmagic.GANLossComps, f"gan_type, {VALUES}"),
    (mmgeneration.GANLoss, f"gan_type, {VALUES}"),
    (mmgeneration.DiscShiftLoss, "loss_weight=1.0, data_info=None, loss_name='loss_disc_shift'"),
    (
        monai.PatchAdversarialLoss,
        "reduction='mean', criterion='least_squares', no_activation_leastsq=False",
    ),
    (monai.PatchAdversarialLoss.forward, "self, input, target_is_real, for_discriminator"),
    (stylegan2_rosinality.d_logistic_loss, "real_pred, fake_pred"),
    (stylegan2_rosinality.d_r1_loss, "real_pred, real_img"),
    (stylegan2_rosinality.g_nonsaturating_loss, "fake_pred"),
    (stylegan2_rosinality.g_path_regularize, PATH),
    (
        stylegan2_ada.StyleGAN2Loss,
        f"device, G_mapping, G_synthesis, D, augment_pipe=None, {STYLEGAN.format(0.9)}",
    ),
    (
        stylegan3.StyleGAN2Loss,
        "device, G, D, augment_pipe=None, r1_gamma=10, style_mixing_prob=0, pl_weight=0, "
        "pl_batch_shrink=2, pl_decay=0.01, pl_no_weight_grad=False, blur_init_sigma=0, "
        "blur_fade_kimg=0",
    ),
    (
        stylegan3.StyleGAN2Loss.accumulate_gradients,
        "self, phase, real_img, real_c, gen_z, gen_c, gain, cur_nimg",
    ),
    (
        stylegan2_ada.StyleGAN2Loss.accumulate_gradients,
        "self, phase, real_img, real_c, gen_z, gen_c, sync, gain",
    ),
    (r3gan.R3GANLoss, "G, D, augment_pipe=None"),
    (
        r3gan.R3GANLoss.accumulate_gradients,
        "self, phase, real_img, real_c, gen_z, gamma, gain",
    ),
    (r3gan.AdversarialTraining.ZeroCenteredGradientPenalty, "Samples, Critics"),
    (studiogan.d_hinge, "d_logit_real, d_logit_fake, DDP=..."),
    (studiogan.g_hinge, "d_logit_fake, DDP=..."),
    (
        studiogan.cal_grad_penalty,
        "real_images, real_labels, fake_images, discriminator, device",
    ),
    (studiogan.cal_dra_penalty, "real_images, real_labels, discriminator, device"),
    (
        studiogan.cal_maxgrad_penalty,
        "real_images, real_labels, fake_images, discriminator, device",
    ),
    (studiogan.feature_matching_loss, "real_embed, fake_embed"),
    (
        studiogan.PathLengthRegularizer,
        "device, pl_decay=0.01, pl_weight=2, pl_no_weight_grad=False",
    ),
    (studiogan.PathLengthRegularizer.cal_pl_reg, "self, fake_images, ws"),
    *[(getattr(biggan, f"loss_{kind}_dis"), SIDES) for kind in ("dcgan", "hinge")],
    *[(getattr(biggan, f"loss_{kind}_gen"), "dis_fake") for kind in ("dcgan", "hinge")],
    *[
        (getattr(lecam, f"loss_{kind}_dis"), f"{SIDES}, ema=None, it=None")
        for kind in ("dcgan", "hinge", "ls", "rahinge")
    ],
    (lecam.lecam_reg, "dis_real, dis_fake, ema"),
    (lecam.ema_losses, "init=1000.0, decay=0.9, start_itr=0"),
    (torchgan.minimax_generator_loss, "dgz, nonsaturating=True, reduction='mean'"),
    (torchgan.minimax_discriminator_loss, "dx, dgz, label_smoothing=0.0, reduction='mean'"),
    (torchgan.boundary_equilibrium_discriminator_loss, "dx, dgz, k, reduction='mean'"),
    (torchgan.dragan_gradient_penalty, "interpolate, d_interpolate, k=1.0, reduction='mean'"),
    (torchgan.wasserstein_gradient_penalty, "interpolate, d_interpolate, reduction='mean'"),
    (tf_gan.wasserstein_discriminator_loss, f"{LOGITS}, {WEIGHTS}"),
    (
        tf_gan.modified_discriminator_loss,
        f"{LOGITS}, label_smoothing=0.25, {WEIGHTS}",
    ),
    (hifigan.discriminator_loss, "disc_real_outputs, disc_generated_outputs"),
    (hifigan.generator_loss, "disc_outputs"),
    (hifigan.feature_loss, "fmap_r, fmap_g"),
    (
        hifigan.DiscriminatorP,
        "period, kernel_size=5, stride=3, use_spectral_norm=False",
    ),
    (hifigan.DiscriminatorS, "use_spectral_norm=False"),
    (hifigan.DiscriminatorS.forward, "self, x"),
    (hifigan.MultiPeriodDiscriminator, ""),
    (hifigan.MultiScaleDiscriminator.forward, "self, y, y_hat"),
    (vits.DiscriminatorS, "use_spectral_norm=False"),
    (vits.MultiPeriodDiscriminator, "use_spectral_norm=False"),
    (
        bigvgan.DiscriminatorP,
        "h, period, kernel_size=5, stride=3, use_spectral_norm=False",
    ),
    (bigvgan.DiscriminatorR, "cfg, resolution"),
    (bigvgan.MultiPeriodDiscriminator, "h"),
    (bigvgan.MultiResolutionDiscriminator, "cfg, debug=False"),
    (vits.feature_loss, "fmap_r, fmap_g"),
    (
        parallel_wavegan.GeneratorAdversarialLoss,
        "average_by_discriminators=True, loss_type='mse'",
    ),
    (
        parallel_wavegan.FeatureMatchLoss,
        "average_by_layers=True, average_by_discriminators=True, include_final_outputs=False",
    ),
    (parallel_wavegan.FeatureMatchLoss.forward, "self, feats_hat, feats"),
    (dac.GANLoss, "discriminator"),
    (dac.GANLoss.generator_loss, "self, fake, real"),
    (
        audiocraft.AdversarialLoss,
        "adversary, optimizer, loss, loss_real, loss_fake, loss_feat=None, normalize=True",
    ),
    (audiocraft.FeatureMatchingLoss, "loss=..., normalize=True"),
    (audiocraft.FeatureMatchingLoss.forward, "self, fmap_fake, fmap_real"),
    *[
        (
            balancer,
            f"weights, {rescale}=True, total_norm=1.0, ema_decay=0.999, per_batch_item=True, "
            "epsilon=1e-12, monitor=False",
        )
        for balancer, rescale in (
            (encodec.Balancer, "rescale_grads"),
            (audiocraft.Balancer, "balance_grads"),
        )
    ],
    *[
        (module.adopt_weight, "weight, global_step, threshold=0, value=0.0")
        for module in (taming, latent_diffusion, llamagen, seed_voken)
    ],
    *[
        (module.hinge_d_loss, "logits_real, logits_fake")
        for module in (taming, latent_diffusion, llamagen, seed_voken, titok)
    ],
    (taming.calculate_adaptive_weight, "nll_loss, g_loss, last_layer"),
    (seed_voken.LeCAM_EMA, "init=0.0, decay=0.999"),
    (seed_voken.lecam_reg, "real_pred, fake_pred, lecam_ema"),
    (
        titok.compute_lecam_loss,
        "logits_real_mean, logits_fake_mean, ema_logits_real_mean, ema_logits_fake_mean",
    ),
    (pytorch_gan.compute_gradient_penalty, "D, real_samples, fake_samples"),
    (pytorch_gan.compute_dragan_penalty, "D, X"),
]


@pytest.mark.parametrize(
    ("drop_in", "published"),
    SIGNATURES,
    ids=[f"{f.__module__}.{f.__qualname__}" for f, _ in SIGNATURES],
)
def test_the_arguments_are_those_of_the_original(drop_in, published):
    wanted = inspect.signature(eval(f"lambda {published}: None")).parameters
    ours = list(inspect.signature(drop_in).parameters.values())
    for parameter, theirs in zip(ours, wanted.values(), strict=False):
        assert parameter.name == theirs.name
        assert parameter.kind is theirs.kind
        if theirs.default is ...:
            assert parameter.default is not parameter.empty
        else:
            assert parameter.default == theirs.default
    assert len(ours) >= len(wanted)
    for parameter in ours[len(wanted) :]:
        assert parameter.default is not parameter.empty
