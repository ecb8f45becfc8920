"""The norm as a root with an epsilon, alpha expanded, gradients taken over images."""

import torch
from torch import nn
from torch.autograd import grad as torch_grad

G = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)))
D = nn.Sequential(nn.Conv2d(3, 5, 2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(5, 1))
G_opt = torch.optim.Adam(G.parameters(), lr=1e-2)
D_opt = torch.optim.Adam(D.parameters(), lr=1e-2)


def _gradient_penalty(real_data, generated_data):
    batch_size = real_data.size()[0]
    alpha = torch.rand(batch_size, 1, 1, 1).expand_as(real_data)
    interpolated = alpha * real_data + (1 - alpha) * generated_data
    interpolated.requires_grad_()
    prob_interpolated = D(interpolated)
    gradients = torch_grad(
        outputs=prob_interpolated,
        inputs=interpolated,
        grad_outputs=torch.ones(prob_interpolated.size()),
        create_graph=True,
        retain_graph=True,
    )[0]
    gradients = gradients.view(batch_size, -1)
    gradients_norm = torch.sqrt(torch.sum(gradients**2, dim=1) + 1e-12)
    return 10 * ((gradients_norm - 1) ** 2).mean()


for step in range(STEPS):
    data, generated_data = torch.randn(5, 3, 2, 2), G(torch.randn(5, 4)).detach()
    d_real, d_generated = D(data), D(generated_data)
    gradient_penalty = _gradient_penalty(data, generated_data)
    D_opt.zero_grad()
    d_loss = d_generated.mean() - d_real.mean() + gradient_penalty
    d_loss.backward()
    D_opt.step()
    G_opt.zero_grad()
    g_loss = -D(G(torch.randn(5, 4))).mean()
    g_loss.backward()
    G_opt.step()
