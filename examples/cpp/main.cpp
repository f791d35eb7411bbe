// showers SAMPLER.onnx ENERGY DX DZ [SHOWERS [SEED]]: mean energy of every layer, and the time that a shower takes.
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>

#include "calograd_sampler.h"

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: showers SAMPLER.onnx ENERGY_GEV DX_CM DZ_CM [SHOWERS [SEED]]\n";
    return 2;
  }
  try {
    const calograd::Sampler sampler(argv[1]);
    const float energy = std::strtof(argv[2], nullptr), dx = std::strtof(argv[3], nullptr);
    const std::vector<float> dz(static_cast<std::size_t>(sampler.n_z()), std::strtof(argv[4], nullptr));
    const int n = argc > 5 ? std::atoi(argv[5]) : 100;
    if (n < 1) throw std::runtime_error("SHOWERS must be at least 1");
    std::mt19937_64 random(argc > 6 ? std::strtoull(argv[6], nullptr, 10) : 1);
    const auto start = std::chrono::steady_clock::now();
    const std::vector<float> cells = sampler.sample(std::vector<float>(n, energy), dx, dz, random);
    const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
    std::cout << sampler.name() << " (" << sampler.materials() << "), " << n << " showers of " << energy << " GeV\n";
    for (int k = 0; k < sampler.n_z(); ++k) {
      double sum = 0;
      for (int shower = 0; shower < n; ++shower)
        for (int i = 0; i < sampler.n_xy(); ++i)
          for (int j = 0; j < sampler.n_xy(); ++j) sum += cells[sampler.index(i, j, k, shower)];
      std::cout << "layer " << k + 1 << ": " << sum / n << " GeV\n";
    }
    std::cout << spent.count() / n << " ms a shower\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 2;
  }
  return 0;
}
