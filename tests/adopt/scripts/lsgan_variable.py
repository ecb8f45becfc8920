"""MSE to Variables that were filled, halves behind the sum (PyTorch-GAN's way)."""

import torch
from torch.autograd import Variable

Tensor = torch.DoubleTensor
adversarial_loss = torch.nn.MSELoss()
generator, discriminator = torch.nn.Linear(4, 6), torch.nn.Linear(6, 1)
optimizer_G = torch.optim.SGD(generator.parameters(), lr=1e-1)
optimizer_D = torch.optim.SGD(discriminator.parameters(), lr=1e-1)

for step in range(STEPS):
    real_imgs = torch.randn(5, 6)
    valid = Variable(Tensor(5, 1).fill_(1.0), requires_grad=False)
    fake = Variable(Tensor(5, 1).fill_(0.0), requires_grad=False)
    optimizer_G.zero_grad()
    gen_imgs = generator(torch.randn(5, 4))
    g_loss = adversarial_loss(discriminator(gen_imgs), valid)
    g_loss.backward()
    optimizer_G.step()
    optimizer_D.zero_grad()
    real_loss = adversarial_loss(discriminator(real_imgs), valid)
    fake_loss = adversarial_loss(discriminator(gen_imgs.detach()), fake)
    d_loss = 0.5 * (real_loss + fake_loss)
    d_loss.backward()
    optimizer_D.step()
