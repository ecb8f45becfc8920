"""WGAN-GP with its penalty in a function, and a fake that nobody detached."""

import torch
import torch.autograd as autograd

generator = torch.nn.Linear(4, 6)
discriminator = torch.nn.Sequential(
    torch.nn.Linear(6, 8), torch.nn.LeakyReLU(0.2), torch.nn.Linear(8, 1)
)
optimizer_G = torch.optim.Adam(generator.parameters(), lr=1e-2)
optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
lambda_gp = 10


def compute_gradient_penalty(D, real_samples, fake_samples):
    # one alpha for each sample
    alpha = torch.rand(real_samples.size(0), 1)
    interpolates = (alpha * real_samples + ((1 - alpha) * fake_samples)).requires_grad_(True)
    d_interpolates = D(interpolates)
    fake = torch.ones(real_samples.shape[0], 1)
    gradients = autograd.grad(
        outputs=d_interpolates,
        inputs=interpolates,
        grad_outputs=fake,
        create_graph=True,
        retain_graph=True,
        only_inputs=True,
    )[0]
    gradients = gradients.view(gradients.size(0), -1)
    gradient_penalty = ((gradients.norm(2, dim=1) - 1) ** 2).mean()
    return gradient_penalty


for step in range(STEPS):
    real_imgs = torch.randn(5, 6)
    optimizer_D.zero_grad()
    fake_imgs = generator(torch.randn(5, 4))
    real_validity = discriminator(real_imgs)
    fake_validity = discriminator(fake_imgs)
    gradient_penalty = compute_gradient_penalty(discriminator, real_imgs.data, fake_imgs.data)
    d_loss = -torch.mean(real_validity) + torch.mean(fake_validity) + lambda_gp * gradient_penalty
    d_loss.backward()
    optimizer_D.step()
    optimizer_G.zero_grad()
    fake_imgs = generator(torch.randn(5, 4))
    g_loss = -torch.mean(discriminator(fake_imgs))
    g_loss.backward()
    optimizer_G.step()
