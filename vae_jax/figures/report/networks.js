// The networks of a study, evaluated as JAX evaluates them: encoder, decoder, likelihood and prior of each model.
"use strict";

const Networks = (() => {
  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
  const LOG_2PI = Math.log(2 * Math.PI);
  const SIGMA_FLOOR = 1e-3;

  const ACTIVATIONS = {
    "": (x) => x,
    relu: (x) => Math.max(x, 0),
    tanh: Math.tanh,
    softplus,
    gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
    elu: (x) => (x > 0 ? x : Math.expm1(x)),
  };

  function bytes(base64) {
    const text = atob(base64);
    const found = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
    return found;
  }

  // An array as the page stores it: float32, or whole numbers of 16 bits with a scale for each column.
  function unpack(stored) {
    const raw = bytes(stored.data).buffer;
    if (!stored.scale) return new Float32Array(raw);
    const whole = new Int16Array(raw);
    const scale = new Float32Array(bytes(stored.scale).buffer);
    const found = new Float32Array(whole.length);
    for (let i = 0; i < whole.length; i++) found[i] = whole[i] * scale[i % scale.length];
    return found;
  }

  // x [n] times kernel [n, outputs], plus bias (or nothing).
  function dense(x, kernel, bias) {
    const outputs = kernel.length / x.length;
    const sum = new Float64Array(outputs);
    if (bias) sum.set(bias);
    for (let i = 0, at = 0; i < x.length; i++, at += outputs) {
      const value = x[i];
      if (value !== 0) for (let j = 0; j < outputs; j++) sum[j] += value * kernel[at + j];
    }
    return sum;
  }

  // Convolution with padding SAME: [height, width, inputs] to 1 / stride of the size, rounded up.
  function conv(x, { kernel, bias, stride, shape: [height, width, inputs] }) {
    const outputs = bias.length, side = Math.sqrt(kernel.length / inputs / outputs);
    const rows = Math.ceil(height / stride), columns = Math.ceil(width / stride);
    // Half of the padding, less if it is odd, is before the image.
    const before = (count, length) => Math.floor(Math.max((count - 1) * stride + side - length, 0) / 2);
    const above = before(rows, height), left = before(columns, width);
    const found = new Float64Array(rows * columns * outputs);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const sum = found.subarray((row * columns + column) * outputs, (row * columns + column + 1) * outputs);
        sum.set(bias);
        for (let a = 0; a < side; a++) {
          const y = stride * row + a - above;
          if (y < 0 || y >= height) continue;
          for (let b = 0; b < side; b++) {
            const across = stride * column + b - left;
            if (across < 0 || across >= width) continue;
            add(sum, x, (y * width + across) * inputs, inputs, kernel, (a * side + b) * inputs * outputs, outputs);
          }
        }
      }
    }
    return found;
  }

  // Its mirror: [height, width, inputs] to `stride` times the size, cropped to `size`.
  function convTranspose(x, { kernel, bias, stride, shape: [height, width, inputs], size: [rows, columns] }) {
    const outputs = bias.length, side = Math.sqrt(kernel.length / inputs / outputs);
    const before = stride > side - 1 ? side - 1 : Math.ceil((side + stride - 2) / 2);
    const found = new Float64Array(rows * columns * outputs);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const sum = found.subarray((row * columns + column) * outputs, (row * columns + column + 1) * outputs);
        sum.set(bias);
        for (let a = 0; a < side; a++) {
          const y = (row + a - before) / stride;
          if (y < 0 || y >= height || !Number.isInteger(y)) continue;
          for (let b = 0; b < side; b++) {
            const across = (column + b - before) / stride;
            if (across < 0 || across >= width || !Number.isInteger(across)) continue;
            add(sum, x, (y * width + across) * inputs, inputs, kernel, (a * side + b) * inputs * outputs, outputs);
          }
        }
      }
    }
    return found;
  }

  // sum += x[from : from + inputs] @ kernel[at : ..., outputs]
  function add(sum, x, from, inputs, kernel, at, outputs) {
    for (let i = 0; i < inputs; i++, at += outputs) {
      const value = x[from + i];
      if (value !== 0) for (let j = 0; j < outputs; j++) sum[j] += value * kernel[at + j];
    }
  }

  const LAYERS = { dense: (x, layer) => dense(x, layer.kernel, layer.bias), conv, conv_transpose: convTranspose };

  // What a gate does to each channel (the last axis) at a beta: x * scale + move.
  function tell(gate, logBeta) {
    const steps = Array.from(gate.slope, (slope, i) => Math.tanh(slope * (logBeta - gate.place[i])) - gate.lowest[i]);
    gate.scale = dense(steps, gate.gain).map((value) => 1 + Math.tanh(value));
    gate.move = dense(steps, gate.shift);
  }

  function pass({ scale, move }, x) {
    for (let i = 0; i < x.length; i++) x[i] = x[i] * scale[i % scale.length] + move[i % scale.length];
    return x;
  }

  function through(layers, x) {
    for (const layer of layers) {
      x = LAYERS[layer.kind](x, layer);
      if (layer.gate) pass(layer.gate, x);
      if (layer.activation) {
        const activation = ACTIVATIONS[layer.activation];
        for (let i = 0; i < x.length; i++) x[i] = activation(x[i]);
      }
    }
    return x;
  }

  // Likelihoods: what a decoder's output says of each pixel. `s` is log sigma.

  // The logits of a continuous Bernoulli, held below 1 / SIGMA_FLOOR.
  const heldLogit = (output) => Math.tanh(output * SIGMA_FLOOR) / SIGMA_FLOOR;

  function logNormalizer(l) {
    if (Math.abs(l) < 1) {
      const q = l * l / 4;
      return l / 2 + q * (1 / 6 - q * (1 / 180 - q * (1 / 2835 - q * (1 / 37800 - q / 467775))));
    }
    return Math.max(l, 0) + Math.log1p(-Math.exp(-Math.abs(l))) - Math.log(Math.abs(l));
  }

  function truncatedMean(l) {
    if (Math.abs(l) < 1e-2) return 0.5 + l / 12 - l ** 3 / 720;
    return l > 0 ? 1 / -Math.expm1(-l) - 1 / l : Math.exp(l) / Math.expm1(l) - 1 / l;
  }

  const logistic = {
    inverse: (s) => Math.exp(-s) * Math.PI / Math.sqrt(3),
    mean(location, s, levels) {
      const inverse = logistic.inverse(s);
      let total = 0;
      for (let k = 0; k < levels; k++) total += sigmoid((location - (k + 0.5) / levels) * inverse);
      return total / levels;
    },
    logProb(x, location, s, levels) {
      const inverse = logistic.inverse(s), half = 0.5 / levels;
      const first = x < half, last = x > 1 - half;
      let found = 0;
      if (!first && !last) found += Math.log(-Math.expm1(-inverse / levels));
      if (!last) found -= softplus(-(x + half - location) * inverse);
      if (!first) found -= softplus((x - half - location) * inverse);
      return found;
    },
  };

  const LIKELIHOODS = {
    bernoulli: { mean: sigmoid, logProb: (x, logit) => x * logit - softplus(logit) },
    continuous_bernoulli: {
      mean: (output) => truncatedMean(heldLogit(output)),
      logProb: (x, output) => x * heldLogit(output) - logNormalizer(heldLogit(output)),
    },
    gaussian: {
      mean: (output) => output,
      logProb: (x, output, s) => -0.5 * ((x - output) * Math.exp(-s)) ** 2 - s - 0.5 * LOG_2PI,
    },
    discretized_logistic: logistic,
  };

  // Priors: log p(z) in nats.

  const logNormal = (z, mean, logVar) => -0.5 * ((z - mean) ** 2 * Math.exp(-logVar) + logVar + LOG_2PI);

  const sum = (values, of) => values.reduce((total, value, i) => total + of(value, i), 0);

  // Student's t with 5 degrees of freedom: Gamma(3) / (Gamma(5/2) sqrt(5 pi)), and Gamma(5/2) = 3 sqrt(pi) / 4.
  const T_NORMALIZER = Math.log(8 / (3 * Math.PI * Math.sqrt(5)));

  function logMixture(z, { log_weights, mean, log_var }) {
    const each = Array.from(log_weights, (weight, k) =>
      weight + sum(z, (value, i) => logNormal(value, mean[k * z.length + i], log_var[k * z.length + i])));
    const most = Math.max(...each);
    return most + Math.log(sum(each, (value) => Math.exp(value - most)));
  }

  // A flow's layers from the latents back to the base, in which p is N(0, I).
  function logFlow(z, { layers }) {
    let logDet = 0;
    for (const layer of [...layers].reverse()) {
      const half = Math.floor(z.length / 2), turned = [...z].reverse();
      const kept = turned.slice(0, half);
      const hidden = kept.length ? dense(kept, layer.kernel, layer.bias) : layer.bias;
      const output = dense(hidden.map(Math.tanh), layer.kernel_out, layer.bias_out);
      const moved = turned.slice(half).map((value, i) => {
        const logScale = 2 * Math.tanh(0.5 * output[z.length - half + i]);
        logDet -= logScale;
        return (value - output[i]) * Math.exp(-logScale);
      });
      z = [...kept, ...moved];
    }
    return sum(z, (value) => logNormal(value, 0, 0)) + logDet;
  }

  const PRIORS = {
    normal: (z) => sum(z, (value) => logNormal(value, 0, 0)),
    laplace: (z) => sum(z, (value) => -Math.abs(value) - Math.LN2),
    student_t: (z) => sum(z, (value) => T_NORMALIZER - 3 * Math.log1p(value * value / 5)),
    mixture: logMixture,
    flow: logFlow,
  };

  // exp(v) - 1 - v, also precise near 0.
  const excess = (v) => (Math.abs(v) < 1e-3 ? v * v * (0.5 + v / 6) : Math.expm1(v) - v);

  // The error function, by its series where that converges fast, else by the continued fraction of its complement.
  function erf(x) {
    if (Math.abs(x) > 6) return Math.sign(x);
    if (Math.abs(x) < 2.5) {
      let term = x, total = x;
      for (let n = 1; n < 60; n++) {
        term *= -x * x / n;
        total += term / (2 * n + 1);
      }
      return 2 / Math.sqrt(Math.PI) * total;
    }
    let fraction = Math.abs(x);
    for (let n = 60; n > 0; n--) fraction = Math.abs(x) + n / 2 / fraction;
    return Math.sign(x) * (1 - Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction));
  }

  // KL(N(mean, exp(logVar)) || p) of one latent, of the priors that have it in closed form.
  const RATES = {
    normal: (mean, logVar) => 0.5 * (mean * mean + excess(logVar)),
    laplace(mean, logVar) {
      const std = Math.exp(0.5 * logVar), ratio = mean / std;
      const folded = std * Math.sqrt(2 / Math.PI) * Math.exp(-0.5 * ratio * ratio) + mean * erf(ratio / Math.SQRT2);
      return Math.LN2 + folded - 0.5 * (LOG_2PI + 1 + logVar);
    },
  };

  // Draws from N(0, 1) by Box and Muller, from numbers that follow from the seed alone (mulberry32).
  function normals(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  // A model of the study: `described` as Python packed it, `arrays` the store that its numbers point into.
  class Model {
    constructor(described, arrays) {
      Object.assign(this, described);
      const read = (value) => {
        if (Array.isArray(value)) return value.map(read);
        if (value === null || typeof value !== "object") return value;
        if ("array" in value) return arrays(value.array);
        return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, read(inner)]));
      };
      for (const name of ["encoder", "decoder", "statistics", "prior", "log_var_gate", "latents_gate"]) this[name] = read(described[name] ?? null);
      this.pixels = this.shape.reduce((a, b) => a * b, 1);
      this.family = LIKELIHOODS[this.likelihood.kind];
      if (this.log_beta !== undefined) this.tell(this.log_beta);
    }

    // From here on as told another beta.
    tell(logBeta) {
      this.log_beta = logBeta;
      const gates = [this.log_var_gate, this.latents_gate, ...[...this.encoder, ...this.decoder].map(({ gate }) => gate)];
      for (const gate of gates) tell(gate, logBeta);
    }

    // q(z | x) of flat pixels: mean and std of each latent, as the objective draws (std 0 of a deterministic code).
    encode(x) {
      const { mean, std, whiten } = this.statistics;
      if (mean) {
        x = Float64Array.from(x, (value, i) => (value - mean[i]) / (std ? std[i] : 1));
        if (whiten) x = dense(x, whiten);
      }
      const both = through(this.encoder, x);
      const n = this.latents;
      if (this.log_var_gate) pass(this.log_var_gate, both.subarray(n));
      return {
        mean: Array.from(both.subarray(0, n)),
        std: Array.from(both.subarray(n), (logVar) => this.noise_scale * Math.exp(0.5 * logVar)),
        logVar: Array.from(both.subarray(n), (logVar) => logVar + 2 * Math.log(this.noise_scale)),
      };
    }

    // p(x | z): the parameter of each pixel, and log sigma where the likelihood has one.
    output(z) {
      z = Float64Array.from(z);
      let found = through(this.decoder, this.latents_gate ? pass(this.latents_gate, z) : z);
      const { log_scale, log_sigma, least_log_sigma } = this.likelihood;
      let logSigma = () => log_sigma;
      if (log_scale !== undefined) {
        // The two halves of the channels: output, and the raw scale.
        const channels = this.shape[this.shape.length - 1], both = found;
        found = new Float64Array(this.pixels);
        const each = new Float64Array(this.pixels), floor = Math.log(SIGMA_FLOOR);
        for (let i = 0; i < this.pixels; i++) {
          const at = Math.floor(i / channels) * 2 * channels + (i % channels);
          found[i] = both[at];
          each[i] = Math.max(floor + softplus(log_scale + both[at + channels] - floor), least_log_sigma ?? -Infinity);
        }
        logSigma = (i) => each[i];
      }
      const { std, color, offset } = this.statistics;
      if (std) found = found.map((value, i) => value * std[i]);
      if (color) found = dense(found, color);
      if (offset) found = found.map((value, i) => value + offset[i]);
      return { values: found, logSigma };
    }

    // The image that is shown for z: the decoder's mean.
    decode(z) {
      const { values, logSigma } = this.output(z);
      return Float32Array.from(values, (value, i) => this.family.mean(value, logSigma(i), this.likelihood.levels));
    }

    // -log p(x | z) in nats, summed over pixels.
    distortion(x, z) {
      const { values, logSigma } = this.output(z);
      return -sum(values, (value, i) => this.family.logProb(x[i], value, logSigma(i), this.likelihood.levels));
    }

    // KL(q || p) of each latent in nats where it has a closed form, else null.
    ratePerLatent({ mean, logVar }) {
      if (this.noise_scale === 0) return mean.map(() => Infinity);
      const rate = RATES[this.prior.kind];
      return rate ? mean.map((value, i) => rate(value, logVar[i])) : null;
    }

    // log p(z) in nats; null where p is unknown.
    logPrior(z) {
      return PRIORS[this.prior.kind]?.(z, this.prior) ?? null;
    }

    // The rate in nats: in closed form, else the estimate log q(z | x) - log p(z) of one draw; null where p is unknown.
    rate(posterior, z) {
      const each = this.ratePerLatent(posterior);
      if (each) return sum(each, (value) => value);
      const logPrior = this.logPrior(z);
      if (logPrior === null) return null;
      return sum(z, (value, i) => logNormal(value, posterior.mean[i], posterior.logVar[i])) - logPrior;
    }
  }

  return { Model, bytes, normals, unpack };
})();
