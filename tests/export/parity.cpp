// parity SAMPLER.onnx SHOWERS ENERGY DX DZ < noise > cells: float32, the noise of all shapes before that of all patterns.
// Of a surrogate that takes particles, their PDG numbers, x, y, theta and phi follow the noise, and the offsets of their
// windows follow the cells.
#include <cstdlib>
#include <iostream>

#include "calograd_sampler.h"

int main(int, char** argv) {
  const calograd::Sampler sampler(argv[1]);
  const auto n = static_cast<std::size_t>(std::atoi(argv[2]));
  const auto read = [](std::size_t count) {
    std::vector<float> values(count);
    std::cin.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(float)));
    return values;
  };
  const auto write = [](const std::vector<float>& values) {
    const auto size = static_cast<std::streamsize>(values.size() * sizeof(float));
    std::cout.write(reinterpret_cast<const char*>(values.data()), size);
  };
  const std::vector<float> energies(n, std::strtof(argv[3], nullptr));
  const float dx = std::strtof(argv[4], nullptr);
  const auto layers = static_cast<std::size_t>(sampler.n_z());
  const std::vector<float> dz(layers, std::strtof(argv[5], nullptr));
  const std::vector<float> shape = read(n * sampler.shape_noise()), pattern = read(n * sampler.pattern_noise());
  std::vector<calograd::Particle> particles;
  std::vector<float> offsets;
  for (std::size_t i = 0; sampler.takes_particles() && i < n; ++i) {
    const std::vector<float> of = read(5);
    particles.push_back({static_cast<std::int64_t>(of[0]), of[1], of[2], of[3], of[4]});
    for (std::size_t k = 0; k < layers; ++k)
      for (const int cell : sampler.window_offset(particles.back(), dx, dz, k)) offsets.push_back(static_cast<float>(cell));
  }
  write(sampler.transform(energies, dx, dz, shape, pattern, particles));
  write(offsets);
}
