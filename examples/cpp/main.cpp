// showers SAMPLER.onnx ENERGY DX DZ [SHOWERS [SEED [PDG X Y THETA PHI]]]: mean energy of every layer, and the time that a shower
// takes. The incident particle is for surrogates that take it; X and Y in cm, THETA and PHI in degrees.
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>

#include "calograd_sampler.h"

int main(int argc, char** argv) {
  if (argc < 5 || (argc > 7 && argc != 12)) {
    std::cerr << "usage: showers SAMPLER.onnx ENERGY_GEV DX_CM DZ_CM [SHOWERS [SEED [PDG X_CM Y_CM THETA PHI]]]\n";
    return 2;
  }
  try {
    const calograd::Sampler sampler(argv[1]);
    const float energy = std::strtof(argv[2], nullptr), dx = std::strtof(argv[3], nullptr);
    const std::vector<float> dz(static_cast<std::size_t>(sampler.n_z()), std::strtof(argv[4], nullptr));
    const int n = argc > 5 ? std::atoi(argv[5]) : 100;
    if (n < 1) throw std::runtime_error("SHOWERS must be at least 1");
    std::mt19937_64 random(argc > 6 ? std::strtoull(argv[6], nullptr, 10) : 1);
    std::vector<calograd::Particle> particles;
    if (argc == 12) {
      const auto number = [&](int k) { return std::strtof(argv[k], nullptr); };
      particles.assign(static_cast<std::size_t>(n), {std::atoi(argv[7]), number(8), number(9), number(10), number(11)});
    }
    const auto start = std::chrono::steady_clock::now();
    const std::vector<float> cells = sampler.sample(std::vector<float>(n, energy), dx, dz, random, particles);
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
