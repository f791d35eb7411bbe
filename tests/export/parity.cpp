// parity SAMPLER.onnx SHOWERS ENERGY DX DZ < noise > cells: float32, the noise of all shapes before that of all patterns.
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
  const std::vector<float> energies(n, std::strtof(argv[3], nullptr));
  const std::vector<float> dz(static_cast<std::size_t>(sampler.n_z()), std::strtof(argv[5], nullptr));
  const std::vector<float> shape = read(n * sampler.shape_noise()), pattern = read(n * sampler.pattern_noise());
  const std::vector<float> cells = sampler.transform(energies, std::strtof(argv[4], nullptr), dz, shape, pattern);
  std::cout.write(reinterpret_cast<const char*>(cells.data()), static_cast<std::streamsize>(cells.size() * sizeof(float)));
}
