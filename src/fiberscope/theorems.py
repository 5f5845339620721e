"""The theorems results rest on: statement, hypotheses, references; `cite` prints their BibTeX.

To add one, add a row to `_ROWS` and name its key in the result that uses it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fiberscope.errors import InputError


@dataclass(frozen=True)
class Theorem:
    """A statement that results rest on.

    Args:
        key: how results name it.
        name: how people call it.
        statement: the claim.
        hypotheses: what must hold; code checks each where it says so.
        references: keys of `REFERENCES`.
        note: its logical status, where that needs a word.
    """

    key: str
    name: str
    statement: str
    hypotheses: tuple[str, ...]
    references: tuple[str, ...]
    note: str = ""


REFERENCES: dict[str, str] = {
    "zhao2025sims": """@article{zhao2025sims,
  title = {Architecture Induces Structural Invariant Manifolds of Neural Network Training Dynamics},
  author = {Zhao and Luo and Zhang},
  journal = {arXiv preprint arXiv:2510.09564},
  year = {2025}
}""",
    "gegenfurtner2026symmetries": """@article{gegenfurtner2026symmetries,
  title = {The Symmetries of Three-Layer {ReLU} Networks},
  author = {Gegenfurtner and Grillo and Mont{\\'u}far},
  journal = {arXiv preprint arXiv:2605.18319},
  year = {2026}
}""",
    "zhang2024llr": """@article{zhang2024llr,
  title = {Local Linear Recovery Guarantee of Deep Neural Networks at Overparameterization},
  author = {Zhang, Yaoyu and Zhang, Leyang and Zhang, Zhongwang and Bai, Zhiwei},
  journal = {arXiv preprint arXiv:2406.18035},
  year = {2024}
}""",
    "zhang2023optimistic": """@article{zhang2023optimistic,
  title = {Optimistic Estimate Uncovers the Potential of Nonlinear Models},
  author = {Zhang, Yaoyu and Zhang, Zhongwang and Zhang, Leyang and Bai, Zhiwei and Luo, Tao and Xu, Zhi-Qin John},
  journal = {arXiv preprint arXiv:2307.08921},
  year = {2023}
}""",
    "zhang2021embedding": """@article{zhang2021embedding,
  title = {Embedding Principle: a hierarchical structure of loss landscape of deep neural networks},
  author = {Zhang, Yaoyu and Li, Yuqing and Zhang, Zhongwang and Luo, Tao and Xu, Zhi-Qin John},
  journal = {Journal of Machine Learning},
  note = {arXiv:2111.15527},
  year = {2022}
}""",
    "zhang2023structure": """@article{zhang2023structure,
  title = {Structure and Gradient Dynamics Near Global Minima of Two-layer Neural Networks},
  author = {Zhang, Leyang and Zhang, Yaoyu and Luo, Tao},
  journal = {arXiv preprint arXiv:2309.00508},
  year = {2023}
}""",
    "diagonal2026": """@article{diagonal2026,
  title = {Gradient Flow Dynamics and Implicit Bias of Diagonal Linear Networks under Infinitesimal Initialization},
  journal = {arXiv preprint arXiv:2607.12332},
  year = {2026}
}""",
    "hajjar2023symmetries": """@article{hajjar2023symmetries,
  title = {On the Symmetries in the Dynamics of Wide Two-Layer Neural Networks},
  author = {Hajjar, Karl and Chizat, L{\\'e}na{\\"i}c},
  journal = {Electronic Research Archive},
  volume = {31},
  number = {4},
  note = {arXiv:2211.08771},
  year = {2023}
}""",
    "marcotte2023abide": """@inproceedings{marcotte2023abide,
  title = {Abide by the Law and Follow the Flow: Conservation Laws for Gradient Flows},
  author = {Marcotte, Sibylle and Gribonval, R{\\'e}mi and Peyr{\\'e}, Gabriel},
  booktitle = {Advances in Neural Information Processing Systems},
  note = {arXiv:2307.00144},
  year = {2023}
}""",
    "marcotte2024keep": """@inproceedings{marcotte2024keep,
  title = {Keep the Momentum: Conservation Laws beyond {E}uclidean Gradient Flows},
  author = {Marcotte, Sibylle and Gribonval, R{\\'e}mi and Peyr{\\'e}, Gabriel},
  booktitle = {International Conference on Machine Learning},
  note = {arXiv:2405.12888},
  year = {2024}
}""",
    "kunin2021neural": """@inproceedings{kunin2021neural,
  title = {Neural Mechanics: Symmetry and Broken Conservation Laws in Deep Learning Dynamics},
  author = {Kunin, Daniel and Sagastuy-Bre{\\~n}a, Javier and Ganguli, Surya and Yamins, Daniel L. K. and
            Tanaka, Hidenori},
  booktitle = {International Conference on Learning Representations},
  note = {arXiv:2012.04728},
  year = {2021}
}""",
    "du2018algorithmic": """@inproceedings{du2018algorithmic,
  title = {Algorithmic Regularization in Learning Deep Homogeneous Models: Layers are Automatically Balanced},
  author = {Du, Simon S. and Hu, Wei and Lee, Jason D.},
  booktitle = {Advances in Neural Information Processing Systems},
  note = {arXiv:1806.00900},
  year = {2018}
}""",
    "sussmann1992uniqueness": """@article{sussmann1992uniqueness,
  title = {Uniqueness of the Weights for Minimal Feedforward Nets with a Given Input-Output Map},
  author = {Sussmann, H{\\'e}ctor J.},
  journal = {Neural Networks},
  volume = {5},
  number = {4},
  pages = {589--593},
  year = {1992}
}""",
    "sussmann1973orbits": """@article{sussmann1973orbits,
  title = {Orbits of Families of Vector Fields and Integrability of Distributions},
  author = {Sussmann, H{\\'e}ctor J.},
  journal = {Transactions of the American Mathematical Society},
  volume = {180},
  pages = {171--188},
  year = {1973}
}""",
    "phuong2020functional": """@inproceedings{phuong2020functional,
  title = {Functional vs. Parametric Equivalence of {ReLU} Networks},
  author = {Phuong, Mary and Lampert, Christoph H.},
  booktitle = {International Conference on Learning Representations},
  year = {2020}
}""",
    "zhang2018efficient": """@inproceedings{zhang2018efficient,
  title = {Efficient Neural Network Robustness Certification with General Activation Functions},
  author = {Zhang, Huan and Weng, Tsui-Wei and Chen, Pin-Yu and Hsieh, Cho-Jui and Daniel, Luca},
  booktitle = {Advances in Neural Information Processing Systems},
  note = {arXiv:1811.00866},
  year = {2018}
}""",
    "salman2019convex": """@inproceedings{salman2019convex,
  title = {A Convex Relaxation Barrier to Tight Robustness Verification of Neural Networks},
  author = {Salman, Hadi and Yang, Greg and Zhang, Huan and Hsieh, Cho-Jui and Zhang, Pengchuan},
  booktitle = {Advances in Neural Information Processing Systems},
  note = {arXiv:1902.08722},
  year = {2019}
}""",
    "farkas1902theorie": """@article{farkas1902theorie,
  title = {Theorie der einfachen {U}ngleichungen},
  author = {Farkas, Julius},
  journal = {Journal f{\\"u}r die reine und angewandte Mathematik},
  volume = {124},
  pages = {1--27},
  year = {1902}
}""",
    "teuber2024verydiff": """@article{teuber2024verydiff,
  title = {Revisiting Differential Verification: Equivalence Verification with Confidence},
  author = {Teuber, Samuel and Kern, Philipp and Janzen, Marvin and Beckert, Bernhard},
  journal = {arXiv preprint arXiv:2410.20207},
  year = {2024}
}""",
    "higham2002accuracy": """@book{higham2002accuracy,
  title = {Accuracy and Stability of Numerical Algorithms},
  author = {Higham, Nicholas J.},
  edition = {2},
  publisher = {SIAM},
  year = {2002}
}""",
    "fiberscope": """@software{fiberscope,
  title = {fiberscope: which networks are the same, what training can do, and what is redundant},
  author = {{The fiberscope authors}},
  year = {2026}
}""",
}
"""BibTeX entries by key."""

_ROWS = (
    Theorem(
        "orbit-invariance",
        "Gradient flow stays in the orbit",
        "For every loss and every data set, gradient flow keeps theta in the orbit of theta under the "
        "family of vector fields grad_theta <c, F(theta)(x)>; a structural invariant manifold is a union of "
        "such orbits.",
        ("F is differentiable in theta along the flow",),
        ("zhao2025sims",),
        "Theorem 3.1 of the reference",
    ),
    Theorem(
        "bracket-rank",
        "Brackets of the fields span the tangent space of the orbit",
        "The tangent space of the orbit at theta is spanned by the fields pushed forward along flows, and for analytic "
        "fields by their iterated Lie brackets at theta; its dimension is the same at all points of the orbit. So "
        "the rank of any brackets, also modulo a prime or in ball arithmetic, is a lower bound of the dimension.",
        ("the fields are analytic in theta near the orbit; else the statement is about the push-forwards",),
        ("sussmann1973orbits", "zhao2025sims"),
    ),
    Theorem(
        "equitable-sim",
        "Equitable partitions are invariant manifolds",
        "Let P_l be orthogonal projectors with P_0 = I, P_L = I such that s maps range P_l into itself and "
        "Diag(s'(z)) maps range P_l into itself for z in it. Then {W_l P_(l-1) = P_l W_l, b_l in range P_l} "
        "is invariant under gradient flow for every loss and data set, and the parts (1 - P_l) W_l (1 - "
        "P_(l-1)) are constant. Partitions into classes give such projectors: 0/1 indicators for any s, "
        "signed ones for odd s, positive weights for positively homogeneous s, null neurons where s(0) = 0.",
        ("the chain's weights are the parameters that are trained", "s' is the same function in every forward pass"),
        ("zhao2025sims", "fiberscope"),
        "proved in the documentation; the classes found are verified over Q",
    ),
    Theorem(
        "symmetry-fixed-space",
        "Fixed spaces of symmetries are invariant manifolds",
        "If a linear isometry g of parameter space keeps the function, F(g theta) = F(theta), then {g theta = theta} "
        "is invariant under gradient flow for every loss and data set, and so are intersections of such spaces. "
        "Exchanging two neurons of a layer gives equal neurons; where s is odd, (a, w, b) -> (-a, -w, -b) gives signs "
        "and null neurons, where s is even and differentiable, (a, w, b) -> (a, -w, -b) gives signs and neurons with "
        "w = b = 0.",
        ("the chain's weights are the parameters that are trained", "s' is the same function in every forward pass"),
        ("zhao2025sims", "fiberscope"),
        "grad F(g theta) = g grad F(theta), so the gradient at a fixed point is fixed",
    ),
    Theorem(
        "silent-neurons",
        "Neurons that are silent for every input never move",
        "Let s and s' be 0 on z <= 0 and let neuron i have b_i <= 0, only zero weights from inputs of any sign, and "
        "no positive weight from neurons that are nonnegative and not silent themselves. Then z_i <= 0 for every "
        "input, so the neuron sends 0 and every entry of the gradient of its incoming and outgoing weights has a "
        "factor s'(z_i) = 0 or h_i = 0, for every loss and data set: it is silent for ever, and training is that of "
        "the network without it. A neuron without incoming weights at a bias with s'(b) = 0 likewise keeps its output.",
        (
            "the chain's weights are the parameters that are trained",
            "s'(0) = 0, as PyTorch and JAX take it for ReLU",
            "the optimiser leaves entries with zero gradient alone or shrinks them towards 0 without passing it",
        ),
        ("fiberscope",),
        "every gradient entry has a zero factor; checked by random networks in the tests",
    ),
    Theorem(
        "tangent-fields",
        "A closed set is invariant exactly if every field is tangent to it",
        "{A theta = b}, and {g = 0} for polynomials g, are invariant under gradient flow for every loss and data set "
        "if at their points the rate A X, or the rate of each g up to multiples of the g, is 0 for every field X = "
        "grad_theta <c, F(theta)(x)>. If one field has a rate other than 0 at one point of the set, some flow "
        "leaves it.",
        ("the fields are locally Lipschitz", "the parameters are trained as they are"),
        ("zhao2025sims", "fiberscope"),
        "rates expanded in symbols that obey the laws of the activation's class hold for the whole class",
    ),
    Theorem(
        "reduced-network",
        "Training on the manifold is training of a narrower network",
        "On that manifold f equals the network with weights R_l = (E_l^T E_l)^(-1) E_l^T W_l E_(l-1), and "
        "gradient flow acts on R_AB with the multiplier n_B / n_A and on biases with 1 / n_A, where n_A is "
        "the squared length of the class vector.",
        ("the hypotheses of equitable-sim",),
        ("zhao2025sims", "fiberscope"),
    ),
    Theorem(
        "optimiser-equivariance",
        "Which optimisers keep the manifold, and follow the reduced network",
        "On the manifold of classes with vectors e every gradient is e_i f_j G_AB / n_A, with G the gradient of the "
        "reduced network and f = e (f = |e| after an even activation). Rules linear in the gradient keep the manifold "
        "and act on R_AB with gradient (n_B / n_A) G_AB; rules that commute with orthogonal maps act as they are on "
        "sqrt(n_A / n_B) R; elementwise odd rules keep it for factors 0, 1, -1 and act on R_AB / n_B with gradient "
        "G_AB / n_A. Decay shrinks R by the factor by which it shrinks W; decay inside the gradient of an elementwise "
        "rule needs constant blocks.",
        ("the hypotheses of equitable-sim", "exact arithmetic: the manifold may repel, and rounding then leaves it"),
        ("zhao2025sims", "fiberscope"),
        "proved in the documentation",
    ),
    Theorem(
        "two-layer-sims",
        "The invariant manifolds of two-layer networks",
        "For two-layer networks with softplus, sigmoid, tanh or erf the orbit of theta has dimension D K + "
        "(output biases), with K the number of classes of neurons that are equal (for tanh and erf: up to sign, "
        "without zero neurons) and D the parameters of a neuron; all parameters with the same classes form one "
        "orbit, and every invariant manifold is a union of such strata.",
        ("two affine layers", "the activation is softplus, sigmoid, tanh or erf"),
        ("zhao2025sims", "fiberscope"),
        "proved for all widths in docs/theory/manifolds.md",
    ),
    Theorem(
        "permutation-scaling",
        "Permutation and positive scaling keep the function",
        "Permuting the neurons of a layer, or multiplying (w_i, b_i) by t > 0 and the outgoing column by "
        "1/t where s(t z) = t s(z), keeps the function; the rank of the scalings at theta bounds the "
        "dimension of the fiber from below.",
        ("s is positively homogeneous of degree 1 on the scaled neurons",),
        ("phuong2020functional",),
    ),
    Theorem(
        "relu-fiber-dimension",
        "Dimension of the fiber of a three-layer bottleneck ReLU network",
        "For generic parameters with s split, d dead and a always-active second-layer neurons the fiber has "
        "dimension n1 + s + d (n1 + 1 + n3) + a (n1 + n3 + 1) - r (n1 + n3 - r) + h, r = min(a, n1, n3), h "
        "= 1 if a first-layer neuron is hidden behind the second layer; M - n3 if s + a = 0.",
        ("three affine layers with ReLU", "n1 <= n0 and rank W1 = n1", "generic parameters for their signs"),
        ("gegenfurtner2026symmetries",),
        "for generic parameters; compared with exact Jacobian ranks on thousands of networks",
    ),
    Theorem(
        "tanh-identifiability",
        "Two-layer tanh networks are determined up to permutation and sign",
        "If no hidden neuron is constant, unread, or equal to another up to sign, the parameters of a "
        "two-layer tanh network are determined by its function up to permutations and sign changes of "
        "neurons; the fiber is finite.",
        ("two affine layers with tanh", "no neuron is constant or unread", "no two neurons are equal up to sign"),
        ("sussmann1992uniqueness",),
    ),
    Theorem(
        "scaling-balance",
        "Balancedness is conserved",
        "|w_i|^2 + b_i^2 - d |v_i|^2 is constant under gradient flow for every loss and data set, w_i, b_i "
        "the incoming and v_i the outgoing weights of a neuron.",
        ("s(t z) = t^d s(z) for t > 0, d >= 1", "the chain's weights are the parameters that are trained"),
        ("marcotte2023abide", "du2018algorithmic"),
    ),
    Theorem(
        "balance-steps",
        "What finite steps do to a conserved quadratic form",
        "A step theta' = c theta - r u takes a quadratic form Q to c^2 Q - 2 r c <theta, u> + r^2 Q(u). If gradient "
        "flow conserves Q for every loss, <theta, g> = 0 for the gradient g of every minibatch, so gradient descent "
        "with weight decay w multiplies Q by (1 - r w)^2 and adds r^2 Q(g), exactly, and with momentum m the pair of Q "
        "and <theta, v> follows a linear recursion forced by Q(v). As r -> 0 at fixed time t (r per step, r / (1 - m) "
        "with momentum) the drift is of first order in r, and with decay Q(t) -> exp(-2 w t) Q(0).",
        (
            "the parameters of the law share one learning rate, decay and momentum",
            "<theta, u> = 0 fails for Adam and other elementwise rules: there the terms are read off the step",
        ),
        ("kunin2021neural", "marcotte2023abide"),
        "elementary; each recursion is checked to rounding along hundreds of random minibatches",
    ),
    Theorem(
        "block-balance",
        "The whole balance matrix of neurons with one activity is conserved",
        "If the neurons of a block of one layer have equal slopes at every data point, on pieces through the origin "
        "(always active, or active on the same inputs), then t_j.t_k - v_j.v_k is constant under gradient flow for "
        "all j, k of the block, t_j = (w_j, b_j) and v_j the incoming and outgoing weights. Parameters that no data "
        "point can move, such as all those of dead neurons, are constant.",
        (
            "the activity on the data does not change; a radius in theta within which it cannot is certified",
            "the chain's weights are the parameters that are trained, without weight decay",
        ),
        ("marcotte2023abide", "gegenfurtner2026symmetries"),
        "elementary; checked over Q against every gradient on hundreds of random networks",
    ),
    Theorem(
        "law-count",
        "How many conservation laws there are",
        "Near theta there are exactly N - r independent functions that all the vector fields of a family keep, N the "
        "dimension of the state and r the largest dimension of an orbit near theta; for analytic families r is the "
        "dimension of the orbits of generic points, the rank of the Lie algebra there.",
        ("the fields are analytic", "local laws, near generic points arbitrarily close to theta"),
        ("marcotte2023abide", "zhao2025sims"),
        "Frobenius; a rank modulo a prime bounds r from below, independent known laws bound it from above",
    ),
    Theorem(
        "symmetry-laws",
        "Affine symmetries give conservation laws",
        "If grad F . (A theta + c) = 0 for all outputs and inputs, gradient flow keeps theta.A theta / 2 + c.theta for "
        "symmetric A; the heavy ball theta'' + tau theta' = -grad keeps exp(tau t) theta'.A theta for skew A and "
        "c = 0; the mirror flow theta_i' = -theta_i grad_i on some coordinates keeps the sum of A_ii theta_i there and "
        "of A_ii theta_i^2 / 2 elsewhere for diagonal A and c = 0.",
        ("the symmetry holds at every theta",),
        ("marcotte2023abide", "marcotte2024keep"),
        "elementary; each law's derivative along random fields is checked modulo a prime",
    ),
    Theorem(
        "lossless-moves",
        "Elementary moves keep the function",
        "Dropping an unread neuron, folding a constant one into the next bias, merging neurons whose rows "
        "are multiples that the activation forgives, and rewriting a block of always-linear neurons with "
        "the same linear map keep f(x) for every x in the domain.",
        ("each move's own condition, replayed over Q by the checker",),
        ("gegenfurtner2026symmetries", "fiberscope"),
    ),
    Theorem(
        "canonical-form",
        "Moves to a normal form keep the function",
        "Scaling a row by e and its outgoing column by 1/phi(e), permuting neurons, turning a row round by s(t) = "
        "e s(-t) + a t + b, folding neurons that are linear on the domain into a linear part, writing a "
        "piecewise-linear s as ReLUs, shifting a kink that the next layer hides, and making one layer of neurons "
        "that read one neuron each, keep f(x) for every x in the domain; so equal normal forms prove equal functions. "
        "Under a head they keep what it tells apart: softmax and argmax forget a common shift of the logits, argmax a "
        "positive factor too.",
        ("each move's own condition, replayed over Q by the checker",),
        ("gegenfurtner2026symmetries", "fiberscope"),
    ),
    Theorem(
        "two-layer-form",
        "Two-layer piecewise-linear functions have one normal form",
        "On a box with interior f(x) = d + M x + sum_h J_h relu(alpha_h x + beta_h), with distinct hyperplanes that "
        "meet the interior, the first nonzero weight of each alpha_h positive, alpha_h and beta_h primitive "
        "integers and J_h != 0, is determined by f up to the order of the h.",
        (
            "one hidden layer with a piecewise-linear activation",
            "the domain has an interior",
            "the last layer has no activation",
        ),
        ("gegenfurtner2026symmetries", "fiberscope"),
        "proved in the documentation: jumps of the gradient across each hyperplane are read off f",
    ),
    Theorem(
        "three-layer-form",
        "Three-layer bottleneck ReLU functions have one normal form in general position",
        "Two parameters that meet the hypotheses have the same function on R^n only if their normal forms are equal.",
        (
            "the rows of W_1 are linearly independent",
            "no second-layer hyperplane passes through y = 0 once hidden kinks are moved off the boundary",
            "no two second-layer hyperplanes share a trace on a face of the orthant",
            "every visible first-layer hyperplane crosses a bend where it shows on both sides",
            "every hidden first-layer neuron is read by two second-layer neurons",
        ),
        ("gegenfurtner2026symmetries", "fiberscope"),
        "proved in the documentation; without the hypotheses there are equal functions with different forms",
    ),
    Theorem(
        "case-tree",
        "A tree of sign splits proves equality",
        "If on every cell of a finite tree of splits by pre-activation signs either both networks are the same affine "
        "map, or nonnegative multipliers of the cell's inequalities add up to a contradiction, the networks are equal "
        "on the domain.",
        ("piecewise-linear activations", "each leaf replayed over Q by the checker"),
        ("farkas1902theorie", "fiberscope"),
    ),
    Theorem(
        "difference-zonotope",
        "Difference zonotopes enclose f - g",
        "The pre-activations of f and of g - f are carried as zonotopes over shared symbols; each unstable ReLU adds "
        "one symbol per network difference, so the difference of two similar networks stays enclosed by a small set.",
        ("piecewise-linear or Lipschitz activations", "IEEE 754 double precision, round to nearest"),
        ("teuber2024verydiff", "higham2002accuracy", "fiberscope"),
    ),
    Theorem(
        "interval-enclosure",
        "Outward-rounded enclosures",
        "Intervals, and linear relaxations substituted back to the input, enclose every pre-activation on a "
        "box when the a-priori error of each floating-point dot product is added outward.",
        ("IEEE 754 double precision, round to nearest",),
        ("zhang2018efficient", "salman2019convex", "higham2002accuracy"),
    ),
    Theorem(
        "lipschitz-difference",
        "Two networks of one shape differ by at most a propagated bound",
        "|dz_l| <= |W'_l| |dh_(l-1)| + |dW_l| |h_(l-1)| + |db_l| and |dh_l| <= Lip(s) |dz_l|, entry by "
        "entry, with |h_l| enclosed on the domain or by a + b |x|_inf.",
        ("the activations have finite Lipschitz constants where they run",),
        ("higham2002accuracy", "fiberscope"),
    ),
    Theorem(
        "meanfield-symmetry",
        "Mean-field training keeps the symmetries of the target",
        "If f*(Tx) = f*(x) for an orthogonal T and mu_0 is invariant under (a, b) -> (a, Tb), then mu_t is invariant "
        "for all t, and so is f(mu_t; .); a finite network whose neurons are permuted by T keeps that too.",
        (
            "the input law is invariant under T",
            "the initial measure is invariant",
            "gradient flow with any activation and loss for which its solution is unique",
        ),
        ("hajjar2023symmetries",),
    ),
    Theorem(
        "meanfield-antisymmetry",
        "Mean-field training keeps the antisymmetries of the target",
        "If f*(Tx) = -f*(x) for an orthogonal T and mu_0 is invariant under (a, b) -> (-a, Tb), then mu_t is "
        "invariant under that map, and f(mu_t; Tx) = -f(mu_t; x).",
        (
            "the input law is invariant under T",
            "the initial measure is invariant under (a, b) -> (-a, Tb)",
            "the derivative of the loss is odd in (output, target) together, as for the squared loss",
            "the solution is unique",
        ),
        ("hajjar2023symmetries",),
    ),
    Theorem(
        "odd-linear",
        "For an odd target the ReLU network stays linear",
        "If f* is odd, f(mu_t; x) = w(t).x, and w follows the closed dynamics of a two-layer linear network: "
        "pv' = p0 (beta - C w) / 2, p0 = sqrt(1 + |pv|^2), w = (V/2) p0 pv.",
        (
            "ReLU; for leaky ReLU the slope of the odd part replaces 1/2, and its product with V replaces V/2",
            "the input law is even",
            "the initial measure is invariant under (a, b) -> (-a, -b)",
            "for the equation: the initial second moments are diag(s^2, t^2 I), V = s^2 + t^2",
        ),
        ("hajjar2023symmetries", "fiberscope"),
        "the closed equation with its constants is derived in the documentation",
    ),
    Theorem(
        "linear-rate",
        "Exponential convergence to the best linear predictor",
        "Q(w(t)) - min Q <= (Q(w(0)) - min Q) exp(-(V/2) lam_min(C) t), lam_min the smallest positive eigenvalue. For "
        "other initial moments S(0), V is replaced by l + m, with l and -m the largest and the second largest "
        "eigenvalue of S(0) J; for a linear network the rate is four times as large.",
        ("the hypotheses of odd-linear but for the initial moments, or a two-layer linear network",),
        ("hajjar2023symmetries", "fiberscope"),
        "the constants are explicit here: H(t) >= (V/4) I for all t >= 0",
    ),
    Theorem(
        "angle-reduction",
        "Learning the norm of a projection is a flow of two measures on an interval",
        "For f*(x) = |x_H| and a mu_0 of the same symmetry the dynamics are those of two measures tau+ and tau- of the "
        "angle between neuron and H in [0, pi/2]: d tau/dt = -div(+-V tau) +- 2 G tau, V = G'.",
        (
            "inputs uniform on the sphere",
            "ReLU",
            "mu_0 invariant under the orthogonal maps of H and of its complement",
            "|a| = |b| in mu_0",
            "1 <= dH < d",
        ),
        ("hajjar2023symmetries",),
    ),
    Theorem(
        "lowdim-reduction",
        "A target on a subspace is learnt by a flow on a small sphere",
        "For f*(x) = f_H(x_H) the dynamics are those of two measures on the half sphere of (b_H, |b_perp|) in "
        "R^(dH + 1).",
        (
            "inputs uniform on the sphere",
            "ReLU",
            "mu_0 invariant under the orthogonal maps that fix H",
            "|a| = |b| in mu_0",
        ),
        ("hajjar2023symmetries",),
    ),
    Theorem(
        "mass-identity",
        "The masses and the mean residual",
        "m+(t) - alpha = m-(t) - E[R_t] / lam_0, with alpha the mass with which a point at angle 0 represents the "
        "target, and lam_0 = E relu(u.x): the positive mass exceeds alpha exactly if E[R_t] < lam_0 m-(t).",
        ("the hypotheses of angle-reduction",),
        ("hajjar2023symmetries", "fiberscope"),
        "the zeroth harmonic of the dynamics; proved in the documentation",
    ),
    Theorem(
        "model-rank",
        "The rank of the tangent functions of a two-layer network",
        "In a two-layer network the gradients that belong to different classes of neurons (equal, up to sign for odd "
        "and even activations, up to multiples for homogeneous ones) are linearly independent functions but for "
        "polynomial remainders; with the outgoing weights and the ties between weights taken in, the rank of all "
        "gradients is a rank over the rationals.",
        (
            "two layers, tied or not",
            "tanh, erf, sigmoid, softplus, SiLU, GELU, Gaussian, ReLU, leaky ReLU or abs",
            "no neuron sits at a kink for all inputs",
        ),
        ("zhang2024llr", "fiberscope"),
        "the independence is proved in the docstring of fiberscope.invariants.recovery.ranking.tangents",
    ),
    Theorem(
        "optimistic-size",
        "As many samples as the smallest rank determine the linearised problem",
        "If n >= O_f(f*) = min of rank_f over the parameters that express f*, then at a minimiser n generic samples "
        "have the full rank: the model linearised there has f* as the only tangent function that fits them.",
        (
            "the model is analytic",
            "n generic samples",
            "a statement about the linearisation: other functions with zero "
            "loss may be near where the rank is not constant, and that training gets there is not claimed",
        ),
        ("zhang2024llr", "zhang2023optimistic"),
    ),
    Theorem(
        "sim-recovery",
        "Interpolation with more samples than the manifold has dimensions",
        "On a manifold of parameters of dimension D, with an analytic model and an analytic target: for almost all "
        "n > D inputs every parameter of the manifold with zero loss computes the target.",
        (
            "model and target are analytic",
            "the inputs have a density and do not depend on the target",
            "no noise",
            "zero loss, of which floating point shows the leading digits",
        ),
        ("zhao2025sims", "zhang2023structure", "fiberscope"),
        "proved in docs/theory/recovery.md; used as a criterion, as its hypotheses on data cannot be checked",
    ),
    Theorem(
        "embedding-principle",
        "Embeddings keep the function, critical points and inertia",
        "With E^T B = 1 in every layer, W' = E W B^T + (1 - E B^T) R (1 - E B^T) computes the same function; with T "
        "and S the maps of parameters and gradients, g' = S g, T^T H' T = H and H' T = S H, so that no count of "
        "the inertia decreases.",
        (
            "the trained parameters are those of the layers",
            "the loss is twice differentiable there, for Hessians",
            "null neurons send a constant that a trained bias takes up",
        ),
        ("zhang2021embedding", "fiberscope"),
    ),
    Theorem(
        "near-minima",
        "The branches of exact fits of a two-layer network",
        "The exact fits of a target of m0 neurons by m neurons are affine branches: S(m, r) r! / (r - m0)! of "
        "dimension (m - r) + (r - m0) d for each r from m0 to m; r + (m + m0 - r) d samples separate them.",
        (
            "the target's neurons are distinct and not zero",
            "neurons of different weights are linearly independent functions",
        ),
        ("zhang2023structure",),
        "the numbers of branches are ours, checked by brute force up to five neurons",
    ),
    Theorem(
        "diagonal-limit",
        "Diagonal networks from infinitesimal starts minimise a weighted l1 norm",
        "As the scale of the start tends to 0, the flow of k_i = product of a_li visits the saddles of a signed least "
        "squares path and ends at a minimiser of sum t+ k+ + t- k- among the solutions of X k = y.",
        ("no ties on the path: they are reported", "the growth times t+- are those of the shape of the start"),
        ("diagonal2026",),
    ),
)

THEOREMS: dict[str, Theorem] = {row.key: row for row in _ROWS}
"""All theorems by key."""


def theorem(key: str) -> Theorem:
    """Look up a theorem.

    Raises:
        InputError: if there is none of that key; near ones are named.

    >>> theorem("scaling-balance").name
    'Balancedness is conserved'
    """
    if key not in THEOREMS:
        near = difflib.get_close_matches(key, THEOREMS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown theorem {key!r}; {hint}known: {', '.join(THEOREMS)}")
    return THEOREMS[key]


def cite(*results: Any) -> str:
    """BibTeX for everything that results (or theorem keys) rest on, each reference once, in order.

    Args:
        results: results with a `theorems` attribute, or keys of theorems.

    Raises:
        InputError: for an unknown key, or an object that names no theorems.

    >>> cite("tanh-identifiability").splitlines()[0]
    '@article{sussmann1992uniqueness,'
    """
    keys = [key for result in results for key in _keys(result)]
    references = dict.fromkeys(name for key in keys for name in theorem(key).references)
    return "\n\n".join(REFERENCES[name] for name in references)


def _keys(result: Any) -> Iterable[str]:
    if isinstance(result, str):
        return (result,)
    keys = getattr(result, "theorems", None)
    if keys is None:
        raise InputError(f"cite() was given a {type(result).__name__}; pass results, or keys such as 'equitable-sim'")
    return tuple(keys)
