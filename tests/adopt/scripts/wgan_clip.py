"""Wasserstein with clipped weights, several critic steps."""

import torch

gen = torch.nn.Linear(4, 6)
critic = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
opt_critic = torch.optim.RMSprop(critic.parameters(), lr=1e-2)
opt_gen = torch.optim.RMSprop(gen.parameters(), lr=1e-2)

for step in range(STEPS):
    for _ in range(2):
        fake = gen(torch.randn(5, 4))
        critic_real = critic(torch.randn(5, 6)).reshape(-1)
        critic_fake = critic(fake).reshape(-1)
        loss_critic = -(torch.mean(critic_real) - torch.mean(critic_fake))
        critic.zero_grad()
        loss_critic.backward(retain_graph=True)
        opt_critic.step()
        for p in critic.parameters():
            p.data.clamp_(-0.01, 0.01)
    gen_fake = critic(fake).reshape(-1)
    loss_gen = -torch.mean(gen_fake)
    gen.zero_grad()
    loss_gen.backward()
    opt_gen.step()
