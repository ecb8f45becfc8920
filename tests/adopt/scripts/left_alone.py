"""What must stay: soft labels, probabilities, options, a reversed sign, gradients used twice."""

import torch
from torch import nn

generator = nn.Linear(4, 6)
discriminator = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
soft, on_probabilities = nn.BCEWithLogitsLoss(), nn.BCELoss()
weighted = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0))
optimizer = torch.optim.SGD([*generator.parameters(), *discriminator.parameters()], lr=0.05)

for step in range(STEPS):
    real, fake = torch.randn(5, 6).requires_grad_(), generator(torch.randn(5, 4))
    real_logits, fake_logits = discriminator(real), discriminator(fake)
    labels = torch.rand(5, 1)
    loss = soft(real_logits, labels)
    loss = loss + on_probabilities(real_logits.sigmoid(), torch.ones(5, 1))
    loss = loss + weighted(fake_logits, torch.zeros(5, 1))
    wasserstein = real_logits.mean() - fake_logits.mean()
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    penalty = gradient.pow(2).sum(1).mean()
    decay = (discriminator[0].weight ** 2).mean()
    (loss + 0.1 * wasserstein + penalty + gradient.abs().mean() + decay).backward()
    optimizer.step()
    optimizer.zero_grad()
