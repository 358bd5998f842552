"""What the post says, statement by statement, in English and Chinese, and how each is decided from the studies."""

import itertools
import math

from vae_jax.core.registry import Registry
from vae_jax.figures.claims import (
    ERRORS,
    FAILS,
    HOLDS,
    Claim,
    Studies,
    Text,
    Value,
    Verdict,
    alike,
    below,
    decide,
    where,
)

# Settings by their fields: a study may call its runs as it likes.
AE = {"objective__noise_scale": 0, "objective__beta": 0}
NO_KL = {"objective__noise_scale": 1, "objective__distortion_weight": 1, "objective__beta": 0}
KL_ONLY = {"objective__noise_scale": 1, "objective__distortion_weight": 0, "objective__beta": 1}
VAE = {"objective__noise_scale": 1, "objective__distortion_weight": 1, "objective__beta": 1}
WEIGHTED = {"objective__noise_scale": 1, "objective__distortion_weight": 1}


def _nonlinear(studies: Studies) -> Verdict:
    table, better, told = studies["latents"], [], []
    counts = table.values("model.latents", model__encoder="mlp")
    for count in counts:
        ours, pca = (
            table.value("mse", model__encoder="mlp", model__latents=count),
            table.value("mse", name="pca", model__latents=count),
        )
        better.append(below(ours, Value(pca.mean, 0.0)))
        told.append(f"{count}: {ours:.4f} / {pca.mean:.4f}")
    numbers = (
        "test mse, AE / PCA, by latents: " + "; ".join(told),
        "测试集均方误差（AE / PCA），按隐变量个数：" + "；".join(told),
    )
    if all(better) or not any(better):
        return decide(all(better), numbers)
    kept = ", ".join(str(count) for count, is_better in zip(counts, better, strict=True) if is_better)
    return Verdict(where(f"there are {kept} latents", f"隐变量个数为 {kept}"), numbers)


def _linear_is_pca(studies: Studies) -> Verdict:
    table = studies["latents"]
    counts = table.values("model.latents", model__encoder="linear")
    pairs = [
        (
            table.value("mse", model__encoder="linear", model__latents=count).mean,
            table.value("mse", name="pca", model__latents=count).mean,
        )
        for count in counts
    ]
    worst = max(abs(ours / pca - 1) for ours, pca in pairs)
    numbers = (
        f"largest relative difference of test mse over {len(pairs)} numbers of latents: {worst:.2%}",
        f"{len(pairs)} 种隐变量个数下测试误差的最大相对差：{worst:.2%}",
    )
    return decide(worst < 0.01, numbers)


def _lossy(studies: Studies) -> Verdict:
    mse = studies["ablations"].value("mse", **AE)
    numbers = (f"test mse of the AE with 2 latents: {mse:.4f}", f"2 个隐变量的 AE 的测试均方误差：{mse:.4f}")
    return decide(below(Value(0.0, 0.0), mse), numbers)


def _features(studies: Studies) -> Verdict:
    table = studies["faces"]
    names = ("hair", "smile", "glasses")
    effect = {name: table.value(f"attribute_effect_{name}", **AE) for name in names}
    leak = {name: table.value(f"attribute_leak_{name}", **AE) for name in names}
    told = "; ".join(f"{name} {effect[name]:.2f} ({leak[name]:.3f})" for name in names)
    numbers = (
        f"AE, attribute vectors, effect (1 is what was meant) and mean change of the other factors: {told}",
        f"AE 的属性向量，效果（1 为预期）与其他因子的平均变化：{told}",
    )
    good = [name for name in names if below(Value(0.5, 0.0), effect[name]) and below(leak[name], Value(0.1, 0.0))]
    if len(good) in (0, len(names)):
        return decide(bool(good), numbers)
    return Verdict(where(f"the feature is {' or '.join(good)}", f"特征为 {'、'.join(good)}"), numbers)


def _unknown_scale(studies: Studies) -> Verdict:
    table = studies["faces"]
    ae, vae = table.value("prior_to_nearest", **AE), table.value("prior_to_nearest", **VAE)
    own = table.value("reconstruction_to_nearest", **AE)
    numbers = (
        f"mse of decoded draws of N(0, I) to the nearest face: AE {ae:.4f}, VAE {vae:.4f}; the AE's reconstructions: {own:.4f}",
        f"从 N(0, I) 抽样解码后到最近人脸的均方误差：AE {ae:.4f}，VAE {vae:.4f}；AE 的重构：{own:.4f}",
    )
    return decide(below(vae, ae) and below(own, ae), numbers)


def _between(studies: Studies) -> Verdict:
    table = studies["faces"]
    ae, vae = table.value("midpoint_ratio", **AE), table.value("midpoint_ratio", **VAE)
    error = table.value("midpoint_factor_error", **AE), table.value("midpoint_factor_error", **VAE)
    numbers = (
        f"decoded middle to the true middle, over the plain average of the two pictures: AE {ae:.2f}, VAE {vae:.2f}; error of "
        f"hair length there: {error[0]:.3f}, {error[1]:.3f}",
        f"解码中点到真实中点的误差与两图平均之比：AE {ae:.2f}，VAE {vae:.2f}；该处头发长度的误差：{error[0]:.3f}、{error[1]:.3f}",
    )
    return decide(below(vae, ae) and below(Value(1.0, 0.0), ae), numbers)


def _gaps_on_digits(studies: Studies) -> Verdict:
    table = studies["ablations"]
    prior = {name: table.value("frechet_prior", **fields) for name, fields in (("AE", AE), ("VAE", VAE))}
    middle = {name: table.value("frechet_midpoint", **fields) for name, fields in (("AE", AE), ("VAE", VAE))}
    told = f"AE {prior['AE']:.2f} / {middle['AE']:.2f}, VAE {prior['VAE']:.2f} / {middle['VAE']:.2f}"
    numbers = (
        f"Frechet distance in pixels to the test images, draws of N(0, I) / midpoints of two codes: {told}",
        f"像素 Frechet 距离（从 N(0, I) 抽样 / 两个编码的中点）：{told}",
    )
    outside, inside = below(prior["VAE"], prior["AE"]), below(middle["VAE"], middle["AE"])
    if outside and not inside:
        condition = ("one draws from N(0, I), not for the middle of two codes", "从 N(0, I) 抽样时；两个编码的中点则不然")
        return Verdict(where(*condition), numbers)
    return decide(outside and inside, numbers)


def _generates(studies: Studies) -> Verdict:
    table = studies["faces"]
    draws, ae = table.value("prior_to_nearest", **VAE), table.value("prior_to_nearest", **AE)
    numbers = (
        f"mse of decoded draws of N(0, I) to the nearest face: VAE {draws:.4f}, AE {ae:.4f}",
        f"从 N(0, I) 抽样解码后到最近人脸的均方误差：VAE {draws:.4f}，AE {ae:.4f}",
    )
    return decide(below(draws, Value(ae.mean / 2, ae.error / 2)), numbers)


def _falls_back(studies: Studies) -> Verdict:
    table = studies["ablations"]
    std, full = table.value("mean_std", **NO_KL), table.value("mean_std", **VAE)
    ours, ae = table.value("mse", **NO_KL), table.value("mse", **AE)
    numbers = (
        f"mean posterior std: {std:.3f} without KL, {full:.3f} with; test mse {ours:.4f} without KL, {ae:.4f} of the AE",
        f"后验标准差均值：无 KL 时 {std:.3f}，有 KL 时 {full:.3f}；测试误差：无 KL {ours:.4f}，AE {ae:.4f}",
    )
    return decide(below(std, Value(0.1 * full.mean, 0.0)) and alike(ours, ae), numbers)


def _panels(studies: Studies) -> Verdict:
    table = studies["ablations"]
    rate = table.value("rate", **KL_ONLY)
    knn = {name: table.value("knn_accuracy", **fields) for name, fields in (("KL", KL_ONLY), ("rec", NO_KL), ("both", VAE))}
    std = table.value("mean_std", **KL_ONLY)
    numbers = (
        f"KL alone: rate {rate:.3f} nats, std {std:.3f}; classes found from the code: {knn['rec']:.2f} reconstruction alone, "
        f"{knn['KL']:.2f} KL alone, {knn['both']:.2f} both",
        f"仅 KL：码率 {rate:.3f} nats，标准差 {std:.3f}；由编码识别类别：仅重构 {knn['rec']:.2f}，仅 KL {knn['KL']:.2f}，两者 {knn['both']:.2f}",
    )
    return decide(rate.mean < 0.01 and below(knn["KL"], Value(0.2, 0.0)) and below(knn["KL"], knn["both"]), numbers)


def _trade(studies: Studies) -> Verdict:
    table = studies["ablations"]
    betas = [beta for beta in table.values("objective.beta", **WEIGHTED) if beta > 0]
    points = [
        (
            table.value("train_distortion", objective__beta=beta, **WEIGHTED),
            table.value("rate", objective__beta=beta, **WEIGHTED),
        )
        for beta in betas
    ]
    steps = list(itertools.pairwise(points))
    is_monotone = all(not below(after[0], before[0]) and not below(before[1], after[1]) for before, after in steps)
    first, last = points[0], points[-1]
    numbers = (
        f"from beta {betas[0]:g} to {betas[-1]:g}: training distortion {first[0]:.2f} to {last[0]:.2f} nats, "
        f"rate {first[1]:.2f} to {last[1]:.2f}",
        f"beta 从 {betas[0]:g} 到 {betas[-1]:g}：训练失真 {first[0]:.2f} 到 {last[0]:.2f} nats，码率 {first[1]:.2f} 到 {last[1]:.2f}",
    )
    return decide(is_monotone and below(first[0], last[0]) and below(last[1], first[1]), numbers)


def _generalises(studies: Studies) -> Verdict:
    table = studies["ablations"]

    def gap(fields: dict) -> Value:
        test, train = table.value("distortion", **fields), table.value("train_distortion", **fields)
        return Value(test.mean - train.mean, math.hypot(test.error, train.error))

    ae, vae = gap(AE), gap(VAE)
    best = min(
        (table.value("distortion", objective__beta=beta, **WEIGHTED) for beta in table.values("objective.beta", **WEIGHTED)),
        key=lambda value: value.mean,
    )
    own = table.value("distortion", **AE)
    numbers = (
        f"distortion, test less train: AE {ae:.2f}, VAE {vae:.2f} nats; test distortion: AE {own:.2f}, best beta {best:.2f}",
        f"失真（测试减训练）：AE {ae:.2f}，VAE {vae:.2f} nats；测试失真：AE {own:.2f}，最佳 beta {best:.2f}",
    )
    return decide(below(vae, ae) and below(best, own), numbers)


def _interval(studies: Studies) -> Verdict:
    table, nominal = studies["post"], 0.9973
    found = {
        sigma: table.value("coverage_3sigma", model__likelihood="gaussian", model__sigma=sigma)
        for sigma in ("learned", "per_pixel")
    }
    told = ", ".join(f"{sigma} {value:.4f}" for sigma, value in found.items())
    numbers = (
        f"pixels inside 3 sigma, test split (nominal {nominal}): {told}",
        f"3 sigma 区间内的像素比例（测试集，名义值 {nominal}）：{told}",
    )
    if all(abs(value.mean - nominal) < 0.001 for value in found.values()):
        return Verdict(HOLDS, numbers)
    if all(value.mean > 0.9 for value in found.values()):
        return Verdict(
            where("a few per cent are no matter: pixels are not Gaussian", "可容忍百分之几的误差：像素并非高斯"), numbers
        )
    return Verdict(FAILS, numbers)


def _any_prior(studies: Studies) -> Verdict:
    table = studies["post"]
    priors = table.values("model.prior", model__likelihood="bernoulli")
    bounds = {prior: table.value("importance_bound", model__likelihood="bernoulli", model__prior=prior) for prior in priors}
    told = ", ".join(f"{prior} {bound:.2f}" for prior, bound in bounds.items())
    normal = bounds["normal"]
    numbers = (f"importance bound, nats per image: {told}", f"重要性下界（nats/图）：{told}")
    return decide(all(bound.mean > normal.mean - 0.5 for bound in bounds.values()), numbers)


def _reparameterised(studies: Studies) -> Verdict:
    table = studies["post"]
    names = ("reparameterized", "score")
    ours, score = (
        table.value(f"gradient_variance_{name}", model__prior="normal", model__likelihood="bernoulli") for name in names
    )
    numbers = (
        f"variance of one draw's gradient: reparameterised {ours:.1f}, score function {score:.1f}",
        f"单次抽样梯度的方差：重参数化 {ours:.1f}，得分函数 {score:.1f}",
    )
    return decide(below(ours, score), numbers)


TWO_ERRORS: Text = (
    f"a difference above {ERRORS:g} standard errors over the seeds",
    f"差异大于 {ERRORS:g} 倍标准误（按随机种子）",
)

CLAIMS: Registry[Claim] = Registry(
    "claim",
    {
        "linear": Claim(
            ("PCA compresses linearly: a linear AE finds the same subspace.", "PCA 是线性降维：线性 AE 得到同样的子空间。"),
            (
                "test mse of the linear AE within 1 % of PCA's at every number of latents",
                "各隐变量个数下线性 AE 与 PCA 的测试误差相差不到 1%",
            ),
            _linear_is_pca,
            "latents/figures/latents.png",
        ),
        "nonlinear": Claim(
            (
                "An AE with nonlinear activations compresses better than PCA.",
                "带非线性激活的 AE 能做非线性降维，压缩得更好。",
            ),
            ("test mse below PCA's by " + TWO_ERRORS[0], "测试误差低于 PCA，" + TWO_ERRORS[1]),
            _nonlinear,
            "latents/figures/latents.png",
        ),
        "lossy": Claim(
            ("Compression loses something: the original cannot be restored exactly.", "降维有损，无法完全还原原图。"),
            ("mse above 0 by " + TWO_ERRORS[0], "均方误差大于 0，" + TWO_ERRORS[1]),
            _lossy,
            "ablations/figures/reconstructions.png",
        ),
        "features": Claim(
            (
                "The latents hold features such as smile and hair; other values give a similar face that differs in that feature.",
                "隐变量对应笑容、头发等特征；赋予不同的值即可得到在该特征上不同的相似图片。",
            ),
            (
                "attribute vectors of the AE: effect above 0.5 and mean change of the other factors below 0.1",
                "AE 的属性向量：效果大于 0.5，其他因子平均变化小于 0.1",
            ),
            _features,
            "faces/figures/attribute_vectors.png",
        ),
        "unknown": Claim(
            (
                "Nobody knows the distribution of an AE's latents, so an arbitrary value decodes to nonsense.",
                "AE 隐变量的分布未知，随意取值解码没有意义。",
            ),
            (
                "draws of N(0, I) are farther from any face for the AE than for the VAE, and than its own reconstructions",
                "AE 从 N(0, I) 抽样得到的图离任何人脸都比 VAE 更远，也比它自己的重构更远",
            ),
            _unknown_scale,
            "faces/figures/prior_draws.png",
        ),
        "between": Claim(
            (
                "Short hair maps to 3 and long hair to 9, but 6 need not be medium hair.",
                "短发映射为 3，长发映射为 9，但 6 未必是中等长度的头发。",
            ),
            (
                "the decoded middle of two AE codes is worse than averaging the pictures (ratio above 1), the VAE's is better than the AE's",
                "AE 编码中点的解码比直接平均两张图更差（比值大于 1），VAE 的中点优于 AE",
            ),
            _between,
            "faces/figures/line.png",
            (
                "No training picture is mapped to the middle of two AE codes, so what the decoder shows there is noise or a blend. How "
                "much depends on the drawing: hair here is a moving edge on a dark background; on a light one a trial did not show it.",
                "没有训练图片映射到两个 AE 编码的中点，解码得到的是噪声或叠影。程度取决于画法：这里的头发是深色背景上移动的边缘；浅色背景上的一次试验未见此现象。",
            ),
        ),
        "gaps": Claim(
            (
                "In two dimensions, what is drawn from a gap between the codes of digits means nothing.",
                "二维隐空间中，从数字编码之间的空白处抽样，得到的图没有意义。",
            ),
            (
                "Frechet distance of draws and of midpoints larger for the AE than for the VAE",
                "AE 的抽样与中点的 Frechet 距离都大于 VAE",
            ),
            _gaps_on_digits,
            "ablations/figures/latent_plane.png",
        ),
        "generates": Claim(
            (
                "Force the latents toward a Gaussian, and a draw of N(0, I) decodes to a new picture.",
                "强迫隐变量服从高斯分布后，从标准正态抽样即可解码出新图片。",
            ),
            (
                "the VAE's draws are less than half as far from the nearest face as the AE's",
                "VAE 的抽样到最近人脸的误差不到 AE 的一半",
            ),
            _generates,
            "faces/figures/prior_draws.png",
        ),
        "reparameterisation": Claim(
            (
                "The reparameterisation trick makes the draw differentiable, so that gradients reach the encoder.",
                "重参数化技巧使采样可导，梯度得以传回编码器。",
            ),
            (
                "the variance of its gradient lies below that of the score function, which needs no such trick",
                "其梯度方差低于无需该技巧的得分函数估计",
            ),
            _reparameterised,
            "post/figures/gradient_variance.png",
            (
                "The encoder gives log sigma^2, and exp of half of it is sigma: always positive.",
                "编码器输出 log sigma^2，取一半再取指数即为 sigma，恒为正。",
            ),
        ),
        "lazy": Claim(
            (
                "Without a constraint the network is lazy: the VAE falls back to an AE.",
                "没有约束时网络会偷懒，VAE 退化为 AE。",
            ),
            (
                "std below a tenth of the VAE's, and a reconstruction that the seeds do not tell from the AE's",
                "标准差不到 VAE 的十分之一，且重构误差与 AE 无显著差别",
            ),
            _falls_back,
            "ablations/figures/posterior_std.png",
            (
                "The post says that mu goes to 0. It is sigma: with mu at 0 every image would have the same code. sigma at 0 leaves mu "
                "alone, and that is an AE.",
                "原文说 mu 全置为 0，这里应为 sigma：若 mu 为 0，所有图片的编码都相同；sigma 为 0 时只剩 mu，才等同于 AE。",
            ),
        ),
        "panels": Claim(
            (
                "Reconstruction alone leaves gaps, KL alone mixes all codes, both together pack the classes around the origin.",
                "仅重构则有空隙，仅 KL 则编码混在一起，两者兼有则各类紧密排列在原点周围。",
            ),
            (
                "KL alone: rate below 0.01 nats and classes below 0.2; with both, above KL alone",
                "仅 KL：码率低于 0.01 nats、识别率低于 0.2；两者兼有时高于仅 KL",
            ),
            _panels,
            "ablations/figures/latent_panels.png",
        ),
        "trade_off": Claim(
            (
                "Reconstruction and KL pull against each other; the balance moves with beta.",
                "重构与 KL 相互制约，beta 移动二者的平衡。",
            ),
            (
                "training distortion rises and rate falls with beta, nowhere the other way by " + TWO_ERRORS[0],
                "训练失真随 beta 上升、码率下降，任何一步都没有显著相反",
            ),
            _trade,
            "ablations/figures/trade_off.png",
        ),
        "noise": Claim(
            (
                "KL adds noise to the decoder's input, and noise makes it generalise.",
                "KL 相当于对解码器输入加噪声，提高泛化能力。",
            ),
            (
                "the gap between test and training distortion is smaller for the VAE, and some beta has a better test distortion than the AE",
                "VAE 的测试与训练失真之差更小，且存在 beta 的测试失真优于 AE",
            ),
            _generalises,
            "ablations/figures/trade_off.png",
        ),
        "interval": Claim(
            (
                "A decoder can learn mu and sigma, and give x an interval such as 3 sigma.",
                "解码器也可学出 mu 和 sigma，给出 X 的区间，例如 3 sigma。",
            ),
            (
                "coverage within 0.001 of 0.9973; above 0.9 it holds with a condition",
                "覆盖率与 0.9973 相差不到 0.001；高于 0.9 则为有条件成立",
            ),
            _interval,
            "post/figures/intervals.png",
        ),
        "prior": Claim(
            ("The prior need not be Gaussian: any distribution would do.", "先验不必是高斯，用任何分布都可以。"),
            (
                "no prior's bound lies more than 0.5 nats below that of the normal one",
                "任何先验的下界都不比正态先验低 0.5 nats 以上",
            ),
            _any_prior,
            "post/figures/priors.png",
        ),
    },
)
