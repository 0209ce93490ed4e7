"""The formulas of the methods: known answers, naive loops, limits, symmetries, extreme values, gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from ltpipe.config.spec import Refused
from ltpipe.mathematics import losses, tau
from ltpipe.methods import bbn, dro_lt, focal, ifl, lff, ride, tade, tau_norm, tde, weight_balance

CIFAR100 = np.array([int(500 * 0.01 ** (c / 99)) for c in range(100)])


def problem(seed, batch=9, classes=5, width=6, dtype=torch.float64):
    """Return random logits, labels, features and class centroids; no label is the last class."""
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, generator=g, dtype=dtype)
    labels = torch.randint(0, classes - 1, (batch,), generator=g)
    features = torch.randn(batch, width, generator=g, dtype=dtype)
    centroids = torch.randn(classes, width, generator=g, dtype=dtype)
    return logits, labels, features, centroids


COUNTS = np.array([50, 20, 9, 3, 1])
PRIOR = torch.tensor(COUNTS / COUNTS.sum())
seeds = st.integers(0, 10**6)
few = settings(max_examples=20)
torch.set_num_threads(1)  # a second thread would only wait for tensors of this size


def dro(f, y, c, eps, weights=None, **options):
    radii = torch.as_tensor(eps, dtype=f.dtype) if torch.is_tensor(eps) else torch.full((len(c),), eps, dtype=f.dtype)
    weights = torch.ones(len(c), dtype=f.dtype) if weights is None else weights
    return dro_lt.robust_loss(f, y, c, radii[y], weights, **options)


def scalar_losses():
    """Return name -> loss(logits, labels, features, centroids); every loss is a scalar."""
    log_pi = PRIOR.log()
    margin = torch.tensor(30 * losses.ldam_margins(COUNTS))
    weight = torch.tensor(losses.class_balanced_weights(COUNTS))
    return {
        "adjusted": lambda s, y, f, c: losses.adjusted_loss(s, y, log_pi.to(s.dtype), weight=weight.to(s.dtype)),
        "ldam": lambda s, y, f, c: losses.adjusted_loss(s, y, margin=margin.to(s.dtype)),
        "mixed": lambda s, y, f, c: losses.mixed_loss(s, y, y.flip(0), 0.3),
        "focal": lambda s, y, f, c: focal.focal_loss(s, y, 2.0),
        "irm": lambda s, y, f, c: ifl.irm_penalty(s, y),
        "robust": lambda s, y, f, c: dro(f, y, c, 0.7, kappa=2),
        "euclidean": lambda s, y, f, c: ifl.centre_loss(f, c[y], "euclidean"),
        "cosine": lambda s, y, f, c: ifl.centre_loss(f, c[y], "cosine"),
        "divergence": lambda s, y, f, c: ride.divergence(
            torch.stack([s, s.roll(1, 1), 2 * s], 1),
            torch.tensor(ride.class_temperatures(PRIOR.numpy(), 0.05)).to(s.dtype),
        ),
    }


every_loss = pytest.mark.parametrize("name", scalar_losses())


@every_loss
@few
@given(seed=seeds)
def test_order_of_the_batch_does_not_matter(name, seed):
    loss = scalar_losses()[name]
    s, y, f, c = problem(seed)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    if name == "mixed":
        assert torch.isclose(losses.mixed_loss(s, y, y, 0.3), F.cross_entropy(s, y))
    else:
        assert torch.isclose(loss(s, y, f, c), loss(s[order], y[order], f[order], c))


@pytest.mark.parametrize("name", ["adjusted", "ldam", "mixed", "focal", "divergence"])
@few
@given(seed=seeds, shift=st.floats(-50, 50))
def test_a_shift_of_all_logits_does_not_matter(name, seed, shift):
    loss = scalar_losses()[name]
    s, y, f, c = problem(seed)
    if name == "divergence":  # with different temperatures for the classes, a shift does matter
        ones = torch.ones(5, dtype=s.dtype)
        experts = torch.stack([s, s.roll(1, 1)], 1)
        assert torch.isclose(ride.divergence(experts + shift, ones), ride.divergence(experts, ones), atol=1e-9)
    else:
        assert torch.isclose(loss(s + shift, y, f, c), loss(s, y, f, c), atol=1e-9)


@every_loss
def test_gradients(name):
    loss = scalar_losses()[name]
    s, y, f, c = problem(3, batch=5)
    s.requires_grad_(), f.requires_grad_()
    if (
        name == "divergence"
    ):  # the mean of the experts has no gradient, by design, so the gradient is not that of the value
        grad = torch.autograd.grad(loss(s, y, f, c), s)[0]
        assert torch.isfinite(grad).all() and grad.abs().sum() > 0
    else:
        assert torch.autograd.gradcheck(lambda a, b: loss(a, y, b, c), (s, f), atol=1e-6)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_finite_at_extremes(name, dtype, size):
    s, y, f, c = problem(5)
    if name == "robust" and dtype == torch.bfloat16:
        dtype = torch.float32  # features reach losses as float32
    s, f = (size * s).to(dtype).requires_grad_(), (size * f).to(dtype).requires_grad_()
    value = scalar_losses()[name](s, y, f, c.to(dtype))
    grads = torch.autograd.grad(value, (s, f), allow_unused=True)
    assert torch.isfinite(value)
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


# logit adjustment, balanced softmax, margins, weights


def test_adjusted_loss_of_zero_logits_is_minus_log_prior():
    y = torch.arange(5)
    for c in y:
        value = losses.adjusted_loss(torch.zeros(1, 5, dtype=torch.float64), c[None], PRIOR.log())
        assert value.item() == pytest.approx(-math.log(PRIOR[c]))


@few
@given(seed=seeds)
def test_balanced_softmax_is_logit_adjustment_with_tau_1(seed):
    s, y, _, _ = problem(seed)
    balanced = -(s.exp() * torch.tensor(COUNTS))[range(len(y)), y].div((s.exp() * torch.tensor(COUNTS)).sum(1)).log()
    assert torch.isclose(losses.adjusted_loss(s, y, PRIOR.log()), balanced.mean())


@few
@given(seed=seeds)
def test_a_uniform_prior_changes_nothing(seed):
    s, y, _, _ = problem(seed)
    uniform = torch.full((5,), 0.2, dtype=s.dtype)
    assert torch.isclose(losses.adjusted_loss(s, y, 2 * uniform.log()), F.cross_entropy(s, y))
    assert torch.equal((s - uniform.log()).argmax(1), s.argmax(1))


@few
@given(seed=seeds)
def test_relabelling_the_classes_does_not_matter(seed):
    s, y, _, _ = problem(seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    margin, shift = torch.tensor(losses.ldam_margins(COUNTS)), PRIOR.log()
    first = losses.adjusted_loss(s, y, shift, margin)
    assert torch.isclose(first, losses.adjusted_loss(s[:, order], order.argsort()[y], shift[order], margin[order]))


@few
@given(seed=seeds)
def test_pairwise_margin_family_naively(seed):
    s, y, _, _ = problem(seed)
    shift, margin, weight = PRIOR.log(), torch.tensor(losses.ldam_margins(COUNTS)), torch.tensor(COUNTS / 9.0)
    total = norm = 0.0
    for b, label in enumerate(y.tolist()):
        inside = sum(
            math.exp(s[b, j] + shift[j] - s[b, label] - shift[label] + margin[label]) for j in range(5) if j != label
        )
        total += weight[label] * math.log1p(inside)
        norm += weight[label]
    assert torch.isclose(losses.adjusted_loss(s, y, shift, margin, weight), total / norm)


def test_class_without_images():
    with pytest.raises(Refused, match=r"none of: \[1, 3\]"):
        losses.log_prior(np.array([0.5, 0.0, 0.5, 0.0]))
    assert losses.class_balanced_weights([5, 0, 5]).tolist() == pytest.approx([1, 0, 1])
    assert np.isfinite(losses.ldam_margins(np.array([5, 0]))).all()


def test_known_weights_margins_and_priors_of_cifar100():
    w, m = losses.class_balanced_weights(CIFAR100), losses.ldam_margins(CIFAR100)
    assert [w[0], w[50], w[99], w.sum()] == pytest.approx([0.0448757, 0.4570555, 4.3783126, 100], rel=2e-6)
    assert [m[0], m[50], m[99]] == pytest.approx([0.1581139, 0.2840548, 0.5], abs=1e-7)
    pi = losses.log_prior(CIFAR100 / CIFAR100.sum())
    assert [pi[0], pi[99]] == pytest.approx([-3.0770357, -7.6822059], abs=1e-7)


@few
@given(counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=30))
def test_limits_of_class_balanced_weights(counts):
    assert losses.class_balanced_weights(counts, 0.0) == pytest.approx(np.ones(len(counts)))
    inverse = len(counts) / np.array(counts) / (1 / np.array(counts)).sum()
    assert losses.class_balanced_weights(counts, 1.0) == pytest.approx(inverse)
    assert losses.class_balanced_weights(counts, 1 - 1e-13) == pytest.approx(inverse, rel=1e-3)


def test_focal_limits():
    s, y, _, _ = problem(0)
    assert torch.isclose(focal.focal_loss(s, y, 0.0), F.cross_entropy(s, y))
    p = s.softmax(1)[range(len(y)), y]
    assert torch.isclose(focal.focal_loss(s, y, 2.0), ((1 - p) ** 2 * -p.log()).mean())


def test_focal_without_a_gradient_through_its_factor():
    s, y, _, _ = problem(0)
    s.requires_grad_()
    p = s.softmax(1)[range(len(y)), y].detach()
    both, detached = (torch.autograd.grad(focal.focal_loss(s, y, 2.0, only), s)[0] for only in (False, True))
    expected = torch.autograd.grad(((1 - p) ** 2 * F.cross_entropy(s, y, reduction="none")).mean(), s)[0]
    assert torch.allclose(detached, expected) and not torch.allclose(both, expected)


# learning from failure


@few
@given(seed=seeds)
def test_losses_of_learning_from_failure_naively(seed):
    s, y, _, _ = problem(seed)
    t = problem(seed + 1)[0]
    s.requires_grad_(), t.requires_grad_()
    biased, target = lff.failure_losses(s, t, y, 0.7)
    value = gradient_s = gradient_t = 0.0
    for b, label in enumerate(y.tolist()):
        p, r = s[b].softmax(0).detach(), t[b].softmax(0).detach()
        easy, hard = -p[label].log(), -r[label].log()
        one = F.one_hot(torch.tensor(label), 5)
        value += 0.7 * p[label] ** 0.7 * easy + easy / (easy + hard + 1e-8) * hard
        # constant factors times the gradient of cross-entropy
        gradient_s += (0.7 * p[label] ** 0.7 * (p - one)).abs().sum()
        gradient_t += (easy / (easy + hard + 1e-8) * (r - one)).abs().sum()
    assert torch.isclose(biased + target, value / len(y))
    grads = torch.autograd.grad(biased + target, (s, t))
    assert torch.isclose(grads[0].abs().sum(), gradient_s / len(y))
    assert torch.isclose(grads[1].abs().sum(), gradient_t / len(y))


# tau on validation


def test_macro_recall_naively_and_absent_classes():
    y = torch.tensor([0, 0, 0, 2])
    predicted = torch.tensor([[0, 0, 1, 2], [0, 0, 0, 0]])
    assert tau.macro_recall(predicted, y, 4).tolist() == pytest.approx([(2 / 3 + 1) / 2, 0.5])
    s = torch.tensor([[2.0, 0, 1.5, 0]]).repeat(4, 1)
    facts = tau.choose_tau(lambda t: s - t * torch.tensor([1.0, 0, 0, 0]), y, 4)
    assert facts == {"tau": 0.0, "tau_macro_recall": 0.5, "val_classes": 2, "val_absent": [1, 3]}


def test_tau_is_chosen_by_macro_recall_and_not_by_accuracy():
    y = torch.tensor([0] * 9 + [1])
    s = torch.tensor([[2.0, 0.0]] * 4 + [[0.5, 0.0]] * 5 + [[1.0, 0.0]])
    adjust = lambda t: s - t * torch.tensor([1.0, 0.0])  # noqa: E731
    facts = tau.choose_tau(adjust, y, 2)
    assert facts["tau"] == 1.1  # 4 of 9 and 1 of 1, against 9 of 9 and 0 of 1
    assert facts["tau_macro_recall"] == pytest.approx((4 / 9 + 1) / 2)


@few
@given(seed=seeds)
def test_tau_normalisation(seed):
    w = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(tau_norm.normalised(w, 0.0), w)
    assert tau_norm.normalised(w, 1.0).norm(dim=1).tolist() == pytest.approx([1] * 5, rel=1e-5)
    assert torch.isfinite(tau_norm.normalised(torch.zeros(2, 3), 1.0)).all()


# DRO-LT


def naive_robust(f, y, c, eps, kappa, weights):
    total = norm = 0.0
    for k in sorted(set(y.tolist())):
        s = [-((c[k] - f[b]).norm() + kappa * eps[k] * (y[b] == k)) for b in range(len(y))]
        bottom = sum(math.exp(v) for v in s)
        logs = [math.log(math.exp(s[b]) / bottom) for b in range(len(y)) if y[b] == k]
        total += weights[k] * -sum(logs) / len(logs)
        norm += weights[k]
    return total / norm


@few
@given(seed=seeds, kappa=st.sampled_from([0, 1, 2]))
def test_robust_loss_naively(seed, kappa):
    _, y, f, c = problem(seed)
    eps = torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=f.dtype)
    weights = torch.tensor(dro_lt.class_weights(COUNTS, "bal"))
    value = dro(f, y, c, eps, weights, kappa=kappa)
    assert value.item() == pytest.approx(float(naive_robust(f, y, c, eps, kappa, weights)), rel=1e-9)


@pytest.mark.parametrize(
    ("kappa", "known"), [(0, (0.981362, 0.862823)), (1, (1.077016, 0.942635)), (2, (1.217123, 1.132033))]
)
def test_known_robust_losses(kappa, known):
    f = torch.tensor([[0.0, 1], [0, 2], [3, 1], [3, 0]], dtype=torch.float64)
    c, y, eps = (
        torch.tensor([[0.0, 0], [3, 0]], dtype=torch.float64),
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([0.5, 1.0]),
    )
    for k in range(2):
        class_loss = dro(f, y, c, eps, F.one_hot(torch.tensor(k), 2).double(), kappa=kappa)
        assert class_loss.item() == pytest.approx(known[k], abs=1e-6)
    assert dro(f, y, c, eps, kappa=kappa).item() == pytest.approx(sum(known) / 2, abs=1e-6)


@few
@given(seed=seeds)
def test_robust_loss_limits(seed):
    _, y, f, c = problem(seed)
    assert torch.isclose(dro(f, y, c, 0.0, kappa=2), dro(f, y, c, 0.9, kappa=0))
    same_class = torch.zeros_like(y)  # a batch of one class: the mean over b of logsumexp(S) - S_b, at least log n
    assert dro(f, same_class, c, 0.5).item() >= math.log(len(y)) - 1e-9
    alone = dro(f[:1], y[:1], c, 0.5)  # a class with one image, alone in its batch
    assert alone.item() == 0.0
    assert dro(f, y, c, 0.2).item() <= dro(f, y, c, 0.8).item()  # a larger radius never lowers the loss
    scaled = dro(f, y, c, 0.5, temperature=1e6)  # infinite temperature: uniform over the batch
    assert scaled.item() == pytest.approx(math.log(len(y)), abs=1e-4)


def test_robust_loss_has_a_gradient_at_distance_0():
    f = torch.zeros(3, 4, requires_grad=True)
    dro(f, torch.tensor([0, 0, 1]), torch.zeros(2, 4), 0.5).backward()
    assert torch.isfinite(f.grad).all()


def test_distances_are_computed_in_parts_of_bounded_memory(monkeypatch):
    """On a GPU, the backward of cdist holds rows x B x D numbers: 2.1 GB for a batch of 512 with 2,048 features."""
    _, y, f, c = problem(6, batch=40, width=16)
    f.requires_grad_()
    whole = dro(f, y, c, 0.7)
    (gradient,) = torch.autograd.grad(whole, f)
    sizes, cdist = [], torch.cdist

    def spy(first, second, **options):
        sizes.append(len(first) * second.numel())
        return cdist(first, second, **options)

    monkeypatch.setattr(torch, "cdist", spy)
    monkeypatch.setattr(dro_lt, "PART", 3 * f.numel())
    parts = dro(f, y, c, 0.7)
    assert max(sizes) <= 3 * f.numel() and len(sizes) == 14
    assert torch.equal(parts, whole)
    assert torch.allclose(torch.autograd.grad(parts, f)[0], gradient, rtol=1e-12, atol=1e-15)
    dro(torch.zeros(512, 2048), torch.zeros(512, dtype=torch.int64), torch.zeros(2, 2048), 0.5)
    assert max(sizes) <= 2**24


def test_small_distances_keep_their_digits():
    """Features far from 0 and near each other: a matrix product would leave no digit of distances of 1e-3."""
    g = torch.Generator().manual_seed(0)
    c, y = 100 + torch.randn(3, 64, generator=g, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    f = (c[y] + 1e-3 * torch.rand(4, 64, generator=g, dtype=torch.float64)).float()
    exact, single = f.double().requires_grad_(), f.clone().requires_grad_()
    c = c.float()
    (wanted,) = torch.autograd.grad(dro(exact, y, c.double(), 0.5), exact)
    (found,) = torch.autograd.grad(dro(single, y, c, 0.5), single)
    assert torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-7)


def test_reference_assignment_of_radii():
    radii, y = torch.tensor([10.0, 20, 30, 40]), torch.tensor([2, 0, 3, 1, 0])
    assert dro_lt.radii_of_samples(radii, y, "correct").tolist() == [30, 10, 40, 20, 10]
    assert dro_lt.radii_of_samples(radii, y, "reference").tolist() == [20, 30, 10, 40, 10]
    assert dro_lt.radii_of_samples(radii, y.sort()[0], "reference").tolist() == [10, 10, 20, 30, 40]


@pytest.mark.parametrize("positive", ["softplus", "clamp", "none"])
def test_learned_radii(positive):
    raw = torch.tensor([dro_lt.raw_of(0.7, positive)])
    assert dro_lt.radius_of(raw, positive).item() == pytest.approx(0.7)
    assert (dro_lt.radius_of(torch.tensor([-9.0]), positive).item() < 0) == (positive == "none")


def test_dro_class_weights():
    assert dro_lt.class_weights(COUNTS, "none").tolist() == [1] * 5
    assert dro_lt.class_weights(COUNTS, "lt") == pytest.approx(COUNTS / 50)
    assert dro_lt.class_weights(COUNTS, "bal") == pytest.approx(83 / (5 * COUNTS))


# IFL


def naive_pareto(p, y, classes, scale=4.0):
    w = np.zeros(len(p))
    for c in range(classes):
        rows = np.flatnonzero(y == c)
        m = len(rows)
        if m < 5:
            w[rows] = 1 / max(m, 1)
            continue
        u = np.abs(1 - (p[rows] - p[rows].min()) / (p[rows].max() - p[rows].min() + 1e-9)) + 1e-5
        ranked = np.sort(u)
        r = ranked[m - int(0.2 * m) :].mean() / ranked[: int(0.8 * m)].mean() + 1e-5
        gamma = np.clip(math.log(scale) / math.log(r), 1, 10)
        w[rows] = (u**gamma + 1e-12) / (u**gamma + 1e-12).sum()
    return w


@few
@given(seed=seeds, classes=st.integers(1, 7), images=st.integers(1, 80))
def test_pareto_weights_naively(seed, classes, images):
    random = np.random.RandomState(seed)
    p, y = random.rand(images).round(random.choice([1, 9])), random.randint(0, classes, images)
    weights = ifl.pareto_weights(torch.tensor(p), torch.tensor(y), classes).numpy()
    assert np.abs(weights - naive_pareto(p, y, classes)).max() < 1e-9
    assert weights.sum() == pytest.approx(len(set(y)))  # every class with an image has the mass 1


def test_known_pareto_weights():
    p = torch.arange(1, 11) / 10
    w = ifl.pareto_weights(p, torch.zeros(10, dtype=torch.int64), 1)
    known = [0.24837, 0.20663, 0.16772, 0.13182, 0.09915, 0.06996, 0.04463, 0.02369, 0.00802, 0.0]
    assert w.tolist() == pytest.approx(known, abs=5e-6)
    assert (w[:2].mean() / w[2:].mean()).item() == pytest.approx(3.339, abs=2e-3)


def test_pareto_weights_are_finite_where_scores_are_equal_or_extreme():
    for p in (torch.ones(7), torch.zeros(7), torch.tensor([0.0] * 6 + [1.0]), torch.tensor([1.0] * 6 + [0.0])):
        w = ifl.pareto_weights(p, torch.zeros(7, dtype=torch.int64), 3)
        assert torch.isfinite(w).all() and w.sum().item() == pytest.approx(1)


def test_unseen_images_get_their_class_mean():
    nan = math.nan
    scores, y = torch.tensor([0.2, nan, 0.6, nan, 0.9]), torch.tensor([0, 0, 0, 1, 2])
    assert ifl.fill_unseen(scores, y, 4).tolist() == pytest.approx([0.2, 0.4, 0.6, 1.0, 0.9])


def test_stream_prior_of_two_environments():
    y = torch.tensor([0, 0, 0, 1])
    weights = torch.stack([torch.ones(4, dtype=torch.float64), ifl.pareto_weights(torch.rand(4), y, 2)])
    assert ifl.stream_prior(weights, y, 2).tolist() == pytest.approx([(0.75 + 0.5) / 2, (0.25 + 0.5) / 2])


def test_centres_follow_sgd_on_the_centre_loss():
    _, y, f, c = problem(1)
    c.requires_grad_()
    grad = torch.autograd.grad(ifl.centre_loss(f, c[y], "euclidean"), c)[0]
    moved = c.detach().clone()
    ifl.move_centres(moved, f, [(y, 1.0)], 0.5, cosine=False)
    assert torch.allclose(moved, c - 0.5 * grad)
    for k in range(5):  # the formula of the text
        members = f[y == k]
        expected = c[k] + len(members) / len(y) * (members.mean(0) - c[k]) if len(members) else c[k]
        assert torch.allclose(moved[k], expected)


def test_centre_losses_naively():
    _, y, f, c = problem(2)
    assert torch.isclose(
        ifl.centre_loss(f, c[y], "euclidean"), sum((f[b] - c[y[b]]) @ (f[b] - c[y[b]]) for b in range(9)) / 9
    )
    cosine = sum(1 - f[b] @ c[y[b]] / f[b].norm() / c[y[b]].norm() for b in range(9)) / 9
    assert torch.isclose(ifl.centre_loss(f, c[y], "cosine"), cosine)


def test_irm_penalty_is_the_derivative_by_a_scale():
    s, y, _, _ = problem(4)
    scale = torch.ones(5, dtype=s.dtype, requires_grad=True)
    grad = torch.autograd.grad(F.cross_entropy(s * scale, y), scale)[0]
    assert torch.isclose(ifl.irm_penalty(s, y), grad.abs().sum())


# experts


@few
@given(seed=seeds)
def test_divergence_naively(seed):
    s = torch.stack([problem(seed + i)[0] for i in range(3)], 1)
    temperature = torch.tensor(ride.class_temperatures(PRIOR.numpy(), 0.05))
    mean, total = s.mean(1), 0.0
    for e in range(3):
        p, log_q = (mean / temperature).softmax(1), (s[:, e] / temperature).log_softmax(1)
        total = total + temperature.mean() ** 2 * F.kl_div(log_q, p, reduction="batchmean")
    assert torch.isclose(ride.divergence(s, temperature), total)
    assert ride.divergence(s[:, :1].expand(-1, 3, -1), temperature).abs() < 1e-12  # equal experts


def test_class_temperatures():
    t = ride.class_temperatures(PRIOR.numpy(), 0.02)
    v = 5 * PRIOR.numpy() * 0.02 + 0.98
    assert t == pytest.approx(v / v.max())
    assert ride.class_temperatures(np.full(4, 0.25), 0.3) == pytest.approx(np.ones(4))


def test_inverse_prior_and_shifts_of_tade():
    prior = torch.tensor([0.5, 0.1, 0.25, 0.15])
    assert tade.inverse(prior).tolist() == pytest.approx([0.1, 0.5, 0.15, 0.25])
    shifts = tade.expert_shifts(prior.log(), 2.0)
    assert shifts[0].abs().sum() == 0
    assert torch.allclose(shifts[2], prior.log() - 2 * tade.inverse(prior).log())


def test_reversed_sampling():
    y = np.repeat(np.arange(3), [6, 3, 1])
    w = bbn.reversed_weights(y, np.array([6, 3, 1]))
    mass = np.bincount(y, w)
    assert mass / mass[2] == pytest.approx([1 / 6, 1 / 3, 1])


@few
@given(seed=seeds)
def test_total_direct_effect_naively(seed):
    from ltpipe.layers.heads import MultiHead

    torch.manual_seed(seed)
    head, f, mean = MultiHead(6, 5, 2, 16.0, 1 / 32).double(), torch.randn(4, 6).double(), torch.randn(6).double()
    logits, effect = head(f), head(mean[None])[0]
    expected = torch.zeros(4, 5, dtype=torch.float64)
    trained = torch.zeros_like(expected)
    for k in range(2):
        z, d, w = f[:, 3 * k : 3 * k + 3], mean[3 * k : 3 * k + 3], head.weight[k]
        d = d / d.norm()
        unit = z / z.norm(dim=1, keepdim=True)
        scaled = w / (w.norm(dim=1, keepdim=True) + 1 / 32)
        trained += 8.0 * unit @ scaled.T
        expected += 8.0 * (unit - 1.5 * (unit @ d)[:, None] * d) @ scaled.T
    assert torch.allclose(tde.without_direction(logits, f, mean, effect, 1.5), expected)
    assert torch.allclose(logits.mean(1), trained)
    assert torch.allclose(tde.without_direction(logits, f, 0 * mean, head(0 * mean[None])[0], 1.5), trained)


# weight balancing


@pytest.mark.parametrize(("threshold", "limit"), [(0, 1), (0.1, 1.4), (1, 5)])
def test_weight_balancing_cuts_long_rows_and_leaves_short_ones(threshold, limit):
    weight = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 1.2]])  # norms 5, 1 and 1.2
    assert weight_balance.limit_of(weight, threshold) == pytest.approx(limit)
    cut = weight_balance.shortened(weight, torch.tensor(float(limit)))
    assert cut.norm(dim=1).tolist() == pytest.approx([min(norm, limit) for norm in (5, 1, 1.2)])
    assert torch.equal(cut[1], weight[1]) and cut[0, 0] / cut[0, 1] == pytest.approx(0.75)
    assert weight_balance.shortened(torch.zeros(2, 2), torch.tensor(1.0)).tolist() == [[0, 0], [0, 0]]


def test_the_binary_loss_of_weight_balancing_is_the_mean_over_images_and_classes():
    logits, labels, _, _ = problem(1, dtype=torch.float32)
    weight, p = torch.rand(5), logits.softmax(dim=1)
    terms = [
        -weight[y] * (math.log(p[b, c]) if c == y else math.log(1 - p[b, c]))
        for b, y in enumerate(labels.tolist())
        for c in range(5)
    ]
    assert weight_balance.binary_loss(logits, labels, weight) == pytest.approx(float(sum(terms)) / len(terms), rel=1e-5)
