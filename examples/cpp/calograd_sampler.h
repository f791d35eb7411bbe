// Showers of a surrogate that 'calograd export' wrote, through the C API of ONNX Runtime.
//
//   calograd::Sampler sampler("exported/sampler.onnx");
//   std::mt19937_64 random(1);
//   std::vector<float> cells = sampler.sample(50.0f, 2.5f, {6, 6, 6, 6, 6}, random);   // GeV
//   float e = cells[sampler.index(i, j, k)];
//
// and of one that takes particles, with their PDG number, entry (cm) and direction (theta and phi, degrees)
//
//   const calograd::Particle electron{11, 0.2f, -0.4f, 20, 35};
//   cells = sampler.sample(50.0f, 1.3f, {4, 4, 4, 4, 4, 4}, random, electron);
//
// Units: cm, GeV, degrees. The front face is z = 0, the origin the middle of the cell that the particle enters. Cell (i, j, k)
// covers x in [(i + o - n/2) dx, (i + 1 + o - n/2) dx), y likewise, z from the sum of the depths before it; o is the
// `window_offset` of layer k, zero for a particle along +z. What cannot be used throws std::runtime_error with one line.
#pragma once

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace calograd {

constexpr const char* kSchema = "calograd/onnx/3";
constexpr const char* kOlder = "calograd/onnx/2";  // knows no particles

struct Range {
  float low = 0, high = 0;
  bool holds(float value) const { return value >= low * 0.9999f && value <= high * 1.0001f; }
};

// The incident particle of a shower, by default a photon on the axis.
struct Particle {
  std::int64_t pdg = 22;      // 22 photon, 11 electron, -11 positron: G4ParticleDefinition::GetPDGEncoding()
  float x = 0, y = 0;         // entry on the front face from the middle of the cell, cm
  float theta = 0, phi = 0;   // angle to the normal of the front face, and azimuth, degrees
};

class Sampler {
 public:
  // Opens a file; the work is done by `threads` threads.
  explicit Sampler(const std::string& path, int threads = 1) : path_(path) {
    api_ = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!api_) throw std::runtime_error(std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() + " is too old");
    OrtEnv* env = nullptr;
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "calograd", &env));
    env_ = {env, api_->ReleaseEnv};
    OrtSessionOptions* raw = nullptr;
    check(api_->CreateSessionOptions(&raw));
    std::unique_ptr<OrtSessionOptions, void (*)(OrtSessionOptions*)> options(raw, api_->ReleaseSessionOptions);
    check(api_->SetIntraOpNumThreads(options.get(), threads));
    OrtSession* session = nullptr;
    check(api_->CreateSession(env_.get(), path.c_str(), options.get(), &session));
    session_ = {session, api_->ReleaseSession};
    OrtMemoryInfo* memory = nullptr;
    check(api_->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    memory_ = {memory, api_->ReleaseMemoryInfo};
    read_metadata();
  }

  // Cells of one shower, GeV, see `index`; dz holds one depth a layer.
  std::vector<float> sample(float energy, float dx, const std::vector<float>& dz, std::mt19937_64& random) const {
    return sample(std::vector<float>{energy}, dx, dz, random);
  }
  std::vector<float> sample(float energy, float dx, const std::vector<float>& dz, std::mt19937_64& random,
                            const Particle& particle) const {
    return sample(std::vector<float>{energy}, dx, dz, random, std::vector<Particle>{particle});
  }

  // Cells of a shower for every energy, one shower after the other; of each its particle, or of none: photons on the axis.
  std::vector<float> sample(const std::vector<float>& energies, float dx, const std::vector<float>& dz,
                            std::mt19937_64& random, const std::vector<Particle>& particles = {}) const {
    auto shape = normal(energies.size() * shape_, random), pattern = normal(energies.size() * pattern_, random);
    return transform(energies, dx, dz, std::move(shape), std::move(pattern), particles);
  }

  // The same with unit normal numbers of one's own engine: shape_noise() and pattern_noise() for every shower.
  std::vector<float> transform(std::vector<float> energies, float dx, const std::vector<float>& dz,
                               std::vector<float> shape, std::vector<float> pattern,
                               std::vector<Particle> particles = {}) const {
    const auto n = static_cast<std::int64_t>(energies.size());
    if (n == 0) return {};
    check_range(energies, dx, dz);
    check_particles(particles, energies.size(), dx);
    if (shape.size() != energies.size() * shape_ || pattern.size() != energies.size() * pattern_)
      throw std::runtime_error(name_ + ": expected " + std::to_string(shape_) + " and " + std::to_string(pattern_) +
                               " normal numbers for every shower");
    std::vector<float> pitch(energies.size(), dx), depths;
    for (std::int64_t row = 0; row < n; ++row) depths.insert(depths.end(), dz.begin(), dz.end());
    const auto layers = static_cast<std::int64_t>(n_z_), shapes = static_cast<std::int64_t>(shape_),
               patterns = static_cast<std::int64_t>(pattern_);
    std::vector<const char*> names = {"energy", "dx", "dz", "shape_noise", "pattern_noise"};
    std::vector<Value> values;
    values.push_back(tensor(energies, {n}));
    values.push_back(tensor(pitch, {n}));
    values.push_back(tensor(depths, {n, layers}));
    values.push_back(tensor(shape, {n, shapes}));
    values.push_back(tensor(pattern, {n, patterns}));
    std::vector<std::int64_t> pdg;
    std::vector<float> position, theta, phi;
    if (takes_particles()) {
      particles.resize(energies.size());  // none are given: photons on the axis
      for (const Particle& each : particles) {
        pdg.push_back(each.pdg), theta.push_back(each.theta), phi.push_back(each.phi);
        position.push_back(each.x), position.push_back(each.y);
      }
      names.insert(names.end(), {"particle", "position", "theta", "phi"});
      values.push_back(tensor(pdg, {n}));
      values.push_back(tensor(position, {n, 2}));
      values.push_back(tensor(theta, {n}));
      values.push_back(tensor(phi, {n}));
    }
    std::vector<const OrtValue*> inputs;
    for (const Value& value : values) inputs.push_back(value.get());
    const char* output = "cells";
    OrtValue* made = nullptr;
    check(api_->Run(session_.get(), nullptr, names.data(), inputs.data(), inputs.size(), &output, 1, &made));
    Value result(made, api_->ReleaseValue);
    float* cells = nullptr;
    check(api_->GetTensorMutableData(result.get(), reinterpret_cast<void**>(&cells)));
    return std::vector<float>(cells, cells + energies.size() * n_xy_ * n_xy_ * n_z_);
  }

  // Where cell (i, j, k) of a shower is; i along x, j along y, k along z.
  std::size_t index(std::size_t i, std::size_t j, std::size_t k, std::size_t shower = 0) const {
    return ((shower * n_xy_ + i) * n_xy_ + j) * n_z_ + k;
  }

  // By how many cells, along x and y, the window of layer k is moved: its middle cell is the one that the particle's straight
  // line crosses in the middle of the layer.
  std::array<int, 2> window_offset(const Particle& particle, float dx, const std::vector<float>& dz, std::size_t k) const {
    double z = 0.5 * dz.at(k);
    for (std::size_t layer = 0; layer < k; ++layer) z += dz[layer];
    const double degree = std::acos(-1.0) / 180, slope = std::tan(particle.theta * degree);
    const auto cell = [&](double entry, double along) {
      return static_cast<int>(std::floor((entry + z * slope * along) / dx + 0.5));
    };
    return {cell(particle.x, std::cos(particle.phi * degree)), cell(particle.y, std::sin(particle.phi * degree))};
  }

  bool takes_particles() const { return !pdg_.empty(); }
  int n_xy() const { return static_cast<int>(n_xy_); }
  int n_z() const { return static_cast<int>(n_z_); }
  std::size_t shape_noise() const { return shape_; }
  std::size_t pattern_noise() const { return pattern_; }
  const Range& energy() const { return energy_; }
  const Range& dx() const { return dx_; }
  const Range& dz() const { return dz_; }
  const Range& theta() const { return theta_; }
  const std::string& name() const { return name_; }
  const std::string& materials() const { return materials_; }

 private:
  using Value = std::unique_ptr<OrtValue, void (*)(OrtValue*)>;

  void check(OrtStatus* status) const {
    if (!status) return;
    const std::string message = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw std::runtime_error(path_ + ": " + message.substr(0, message.find('\n')));
  }

  void read_metadata() {
    OrtModelMetadata* raw = nullptr;
    check(api_->SessionGetModelMetadata(session_.get(), &raw));
    std::unique_ptr<OrtModelMetadata, void (*)(OrtModelMetadata*)> metadata(raw, api_->ReleaseModelMetadata);
    OrtAllocator* allocator = nullptr;
    check(api_->GetAllocatorWithDefaultOptions(&allocator));
    const auto text = [&](const char* key) {
      char* found = nullptr;
      check(api_->ModelMetadataLookupCustomMetadataMap(metadata.get(), allocator, key, &found));
      const std::string result = found ? found : "";
      if (found) check(api_->AllocatorFree(allocator, found));
      return result;
    };
    const auto range = [&](const char* key) {
      Range result;
      std::istringstream(text(key)) >> result.low >> result.high;
      return result;
    };
    if (text("schema") != kSchema && text("schema") != kOlder)
      throw std::runtime_error(path_ + " has schema '" + text("schema") + "', this program reads '" + kSchema +
                               "'; export it with the version of calograd that this header came with");
    if (text("part") != "sampler") throw std::runtime_error(path_ + " holds the part '" + text("part") + "', expected sampler.onnx");
    if (text("dx_unit") != "cm" || text("materials").find(',') != std::string::npos)
      throw std::runtime_error(path_ + " is of several materials (" + text("materials") +
                               "), this header takes one; export it with --material");
    std::istringstream particles(text("particles"));
    for (std::int64_t number = 0; particles >> number;) pdg_.push_back(number);
    std::istringstream(text("cells")) >> n_xy_ >> n_xy_ >> n_z_;
    std::istringstream(text("noise")) >> shape_ >> pattern_;
    energy_ = range("energy_range"), dx_ = range("dx_range"), dz_ = range("dz_range"), theta_ = range("theta_range");
    unequal_ = text("unequal_layers") == "yes";
    name_ = text("name"), materials_ = text("materials");
  }

  void check_range(const std::vector<float>& energies, float dx, const std::vector<float>& dz) const {
    if (dz.size() != n_z_)
      throw std::runtime_error(name_ + ": " + std::to_string(dz.size()) + " depths, expected " + std::to_string(n_z_));
    for (float value : energies) refuse("energy", "GeV", value, energy_);
    refuse("dx", "cm", dx, dx_);
    for (float value : dz) {
      refuse("dz", "cm", value, dz_);
      if (!unequal_ && value != dz[0]) throw std::runtime_error(name_ + ": layers of different depths were not trained on");
    }
  }

  void check_particles(const std::vector<Particle>& particles, std::size_t n, float dx) const {
    if (!takes_particles() && !particles.empty())
      throw std::runtime_error(name_ + " knows the particles alone that it was trained on; leave them out");
    if (!particles.empty() && particles.size() != n)
      throw std::runtime_error(name_ + ": " + std::to_string(particles.size()) + " particles for " + std::to_string(n) +
                               " energies");
    for (const Particle& each : particles) {
      std::ostringstream line;
      if (std::find(pdg_.begin(), pdg_.end(), each.pdg) == pdg_.end()) {
        line << name_ << ": particle " << each.pdg << " was not trained on; expected the PDG number";
        for (std::size_t k = 0; k < pdg_.size(); ++k) line << (k == 0 ? " " : " or ") << pdg_[k];
        throw std::runtime_error(line.str());
      }
      if (!(std::max(std::abs(each.x), std::abs(each.y)) <= 0.50005f * dx)) {
        line << name_ << ": position = (" << each.x << ", " << each.y << ") cm is outside the central cell of " << dx
             << " cm; expected coordinates in cm from the middle of the cell that is hit";
        throw std::runtime_error(line.str());
      }
      refuse("theta", "degrees", each.theta, theta_);
      if (!std::isfinite(each.phi)) throw std::runtime_error(name_ + ": phi is not a finite number of degrees");
    }
  }

  void refuse(const char* what, const char* unit, float value, const Range& range) const {
    if (range.holds(value)) return;
    std::ostringstream line;
    line << name_ << ": " << what << " = " << value << ' ' << unit << " is outside " << range.low << " to " << range.high << ' ' << unit;
    throw std::runtime_error(line.str());
  }

  static std::vector<float> normal(std::size_t count, std::mt19937_64& random) {
    std::normal_distribution<float> unit;
    std::vector<float> result(count);
    for (float& value : result) value = unit(random);
    return result;
  }

  template <class T>
  Value tensor(std::vector<T>& data, const std::vector<std::int64_t>& shape) const {
    static_assert(std::is_same<T, float>::value || std::is_same<T, std::int64_t>::value, "types of the inputs");
    const auto type = std::is_same<T, float>::value ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    OrtValue* value = nullptr;
    check(api_->CreateTensorWithDataAsOrtValue(memory_.get(), data.data(), data.size() * sizeof(T), shape.data(),
                                               shape.size(), type, &value));
    return Value(value, api_->ReleaseValue);
  }

  const OrtApi* api_ = nullptr;
  std::string path_, name_, materials_;
  std::unique_ptr<OrtEnv, void (*)(OrtEnv*)> env_{nullptr, nullptr};
  std::unique_ptr<OrtSession, void (*)(OrtSession*)> session_{nullptr, nullptr};
  std::unique_ptr<OrtMemoryInfo, void (*)(OrtMemoryInfo*)> memory_{nullptr, nullptr};
  std::size_t n_xy_ = 0, n_z_ = 0, shape_ = 0, pattern_ = 0;
  Range energy_, dx_, dz_, theta_;
  std::vector<std::int64_t> pdg_;
  bool unequal_ = false;
};

}  // namespace calograd
