// The matrices of layers, their adapters, and the gradients of both.
#include <algorithm>

#include "train/network_impl.h"

namespace edgewise::train {

void Network::Impl::Linear(const LayerPass& at, Product product, const float* x, float* y) {
  const size_t in = InputsOf(spec, product), out = OutputsOf(spec, product);
  ops->Multiply({x, in}, {Effective(at, product), in, true}, n, out, in, y, out, false);
  if (!options.keep_zeros) AddLora(at, product, x, y);
}

void Network::Impl::LinearBackward(const LayerPass& at, Product product, const float* x,
                                   const float* dy, float* dinput) {
  const size_t in = InputsOf(spec, product), out = OutputsOf(spec, product);
  if (float* dweight = MatrixOf(at.g, product); dweight != nullptr) {
    ops->Multiply({dy, out, true}, {x, in}, out, in, n, dweight, in, true);
  }
  ops->Multiply({dy, out}, {Effective(at, product), in}, n, in, out, dinput, in, false);
  if (options.keep_zeros) {
    EffectiveBackward(at, product, x, dy);
  } else {
    AddLoraBackward(at, product, x, dy, dinput);
  }
}

void Network::Impl::LoraDrop(const LayerPass& at, Product product, float* x) {
  const uint64_t place = at.l * kProducts + static_cast<size_t>(product);
  // Other seeds than those of Drop.
  ops->Dropout(static_cast<float>(options.lora.dropout),
               ~(at.pass.seed * kProducts * spec.n_layers + place), n * InputsOf(spec, product), x);
}

const float* Network::Impl::LoraInputs(const LayerPass& at, Product product, const float* x) {
  const ProductLora& of = *LoraOf(at, product);
  const size_t in = InputsOf(spec, product), width = of.parts.size() * lora->rank();
  if (at.pass.training && options.lora.dropout > 0) {
    dropped.resize(room() * Widest(spec));
    std::copy_n(x, n * in, dropped.data());
    LoraDrop(at, product, dropped.data());
    x = dropped.data();
  }
  low_rank.resize(std::max(low_rank.size(), room() * width));
  ops->Multiply({x, in}, {at.pass.adapters + of.a(), in, true}, n, width, in, low_rank.data(),
                width, false);
  ops->Scale(options.lora.scale(), n * width, low_rank.data());
  return x;
}

void Network::Impl::AddLora(const LayerPass& at, Product product, const float* x, float* y) {
  const ProductLora* of = LoraOf(at, product);
  if (of == nullptr) return;
  LoraInputs(at, product, x);
  const size_t rank = lora->rank(), width = of->parts.size() * rank;
  const size_t out = OutputsOf(spec, product);
  for (size_t j = 0; j < of->parts.size(); ++j) {
    const LoraPart& part = of->parts[j];
    ops->Multiply({low_rank.data() + j * rank, width}, {at.pass.adapters + part.b, rank, true}, n,
                  part.rows, rank, y + part.first_row, out, true);
  }
}

// With u = scale drop(x) A^T: dB = dy^T u, du = scale dy B, dA = du^T drop(x), dx += drop(du A).
void Network::Impl::AddLoraBackward(const LayerPass& at, Product product, const float* x,
                                    const float* dy, float* dinput) {
  const ProductLora* of = LoraOf(at, product);
  if (of == nullptr) return;
  const float *input = LoraInputs(at, product, x), *weights = at.pass.adapters;
  float* gradients = at.pass.gradients;
  const size_t rank = lora->rank(), width = of->parts.size() * rank;
  const size_t in = InputsOf(spec, product), out = OutputsOf(spec, product);
  dlow_rank.resize(std::max(dlow_rank.size(), room() * width));
  for (size_t j = 0; j < of->parts.size(); ++j) {
    const LoraPart& part = of->parts[j];
    const float* dpart = dy + part.first_row;
    ops->Multiply({dpart, out, true}, {low_rank.data() + j * rank, width}, part.rows, rank, n,
                  gradients + part.b, rank, true);
    ops->Multiply({dpart, out}, {weights + part.b, rank}, n, rank, part.rows,
                  dlow_rank.data() + j * rank, width, false);
  }
  ops->Scale(options.lora.scale(), n * width, dlow_rank.data());
  ops->Multiply({dlow_rank.data(), width, true}, {input, in}, width, in, n, gradients + of->a(), in,
                true);
  const Matrix a = {weights + of->a(), in};
  if (input == x) {
    ops->Multiply({dlow_rank.data(), width}, a, n, in, width, dinput, in, true);
    return;
  }
  ddropped.resize(room() * Widest(spec));
  ops->Multiply({dlow_rank.data(), width}, a, n, in, width, ddropped.data(), in, false);
  LoraDrop(at, product, ddropped.data());
  ops->Add(dinput, ddropped.data(), n * in, dinput);
}

const float* Network::Impl::Effective(const LayerPass& at, Product product) {
  const float* weight = MatrixOf(at.w, product);
  const ProductLora* of = LoraOf(at, product);
  if (!options.keep_zeros || of == nullptr) return weight;
  const size_t in = InputsOf(spec, product), size = OutputsOf(spec, product) * in;
  const size_t rank = lora->rank();
  merged.resize(std::max(merged.size(), size));
  std::fill_n(merged.begin(), size, 0.0f);
  for (const LoraPart& part : of->parts) {
    ops->Multiply({at.pass.adapters + part.b, rank}, {at.pass.adapters + part.a, in}, part.rows, in,
                  rank, merged.data() + part.first_row * in, in, false);
  }
  ops->ScaleKept(weight, options.lora.scale(), size, merged.data());
  ops->Add(weight, merged.data(), size, merged.data());
  return merged.data();
}

// With dW = scale dy^T x where W is not 0: dB = dW A^T, dA = B^T dW.
void Network::Impl::EffectiveBackward(const LayerPass& at, Product product, const float* x,
                                      const float* dy) {
  const ProductLora* of = LoraOf(at, product);
  if (of == nullptr) return;
  const size_t in = InputsOf(spec, product), out = OutputsOf(spec, product), rank = lora->rank();
  dmerged.resize(std::max(dmerged.size(), out * in));
  ops->Multiply({dy, out, true}, {x, in}, out, in, n, dmerged.data(), in, false);
  ops->ScaleKept(MatrixOf(at.w, product), options.lora.scale(), out * in, dmerged.data());
  for (const LoraPart& part : of->parts) {
    const Matrix dpart = {dmerged.data() + part.first_row * in, in};
    const float *a = at.pass.adapters + part.a, *b = at.pass.adapters + part.b;
    ops->Multiply(dpart, {a, in, true}, part.rows, rank, in, at.pass.gradients + part.b, rank,
                  true);
    ops->Multiply({b, rank, true}, dpart, rank, in, part.rows, at.pass.gradients + part.a, in,
                  true);
  }
}

}  // namespace edgewise::train
