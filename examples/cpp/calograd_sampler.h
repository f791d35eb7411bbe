// Showers of a surrogate that 'calograd export' wrote, through the C API of ONNX Runtime.
//
//   calograd::Sampler sampler("exported/sampler.onnx");
//   std::mt19937_64 random(1);
//   std::vector<float> cells = sampler.sample(50.0f, 2.5f, {6, 6, 6, 6, 6}, random);   // GeV
//   float e = cells[sampler.index(i, j, k)];
//
// Units: cm, GeV. Cell (i, j, k) covers x in [(i - n/2) dx, (i + 1 - n/2) dx), y likewise, z from the sum of the depths
// before it; the photon comes along +z at x = y = 0, the front face is z = 0. What cannot be used throws std::runtime_error
// with one line.
#pragma once

#include <onnxruntime_c_api.h>

#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace calograd {

constexpr const char* kSchema = "calograd/onnx/2";

struct Range {
  float low = 0, high = 0;
  bool holds(float value) const { return value >= low * 0.9999f && value <= high * 1.0001f; }
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

  // Cells of a shower for every energy, one shower after the other.
  std::vector<float> sample(const std::vector<float>& energies, float dx, const std::vector<float>& dz,
                            std::mt19937_64& random) const {
    return transform(energies, dx, dz, normal(energies.size() * shape_, random), normal(energies.size() * pattern_, random));
  }

  // The same with unit normal numbers of one's own engine: shape_noise() and pattern_noise() for every shower.
  std::vector<float> transform(std::vector<float> energies, float dx, const std::vector<float>& dz,
                               std::vector<float> shape, std::vector<float> pattern) const {
    const auto n = static_cast<std::int64_t>(energies.size());
    if (n == 0) return {};
    check_range(energies, dx, dz);
    if (shape.size() != energies.size() * shape_ || pattern.size() != energies.size() * pattern_)
      throw std::runtime_error(name_ + ": expected " + std::to_string(shape_) + " and " + std::to_string(pattern_) +
                               " normal numbers for every shower");
    std::vector<float> pitch(energies.size(), dx), depths;
    for (std::int64_t row = 0; row < n; ++row) depths.insert(depths.end(), dz.begin(), dz.end());
    const std::array<const char*, 5> names = {"energy", "dx", "dz", "shape_noise", "pattern_noise"};
    const auto layers = static_cast<std::int64_t>(n_z_), shapes = static_cast<std::int64_t>(shape_),
               patterns = static_cast<std::int64_t>(pattern_);
    std::array<Value, 5> values = {tensor(energies, {n}), tensor(pitch, {n}), tensor(depths, {n, layers}),
                                   tensor(shape, {n, shapes}), tensor(pattern, {n, patterns})};
    std::array<const OrtValue*, 5> inputs{};
    for (std::size_t k = 0; k < values.size(); ++k) inputs[k] = values[k].get();
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

  int n_xy() const { return static_cast<int>(n_xy_); }
  int n_z() const { return static_cast<int>(n_z_); }
  std::size_t shape_noise() const { return shape_; }
  std::size_t pattern_noise() const { return pattern_; }
  const Range& energy() const { return energy_; }
  const Range& dx() const { return dx_; }
  const Range& dz() const { return dz_; }
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
    if (text("schema") != kSchema)
      throw std::runtime_error(path_ + " has schema '" + text("schema") + "', this program reads '" + kSchema +
                               "'; export it with the version of calograd that this header came with");
    if (text("part") != "sampler") throw std::runtime_error(path_ + " holds the part '" + text("part") + "', expected sampler.onnx");
    if (text("dx_unit") != "cm" || text("materials").find(',') != std::string::npos)
      throw std::runtime_error(path_ + " is of several materials (" + text("materials") + "), this header takes one");
    std::istringstream(text("cells")) >> n_xy_ >> n_xy_ >> n_z_;
    std::istringstream(text("noise")) >> shape_ >> pattern_;
    energy_ = range("energy_range"), dx_ = range("dx_range"), dz_ = range("dz_range");
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

  Value tensor(std::vector<float>& data, const std::vector<std::int64_t>& shape) const {
    OrtValue* value = nullptr;
    check(api_->CreateTensorWithDataAsOrtValue(memory_.get(), data.data(), data.size() * sizeof(float), shape.data(),
                                               shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
    return Value(value, api_->ReleaseValue);
  }

  const OrtApi* api_ = nullptr;
  std::string path_, name_, materials_;
  std::unique_ptr<OrtEnv, void (*)(OrtEnv*)> env_{nullptr, nullptr};
  std::unique_ptr<OrtSession, void (*)(OrtSession*)> session_{nullptr, nullptr};
  std::unique_ptr<OrtMemoryInfo, void (*)(OrtMemoryInfo*)> memory_{nullptr, nullptr};
  std::size_t n_xy_ = 0, n_z_ = 0, shape_ = 0, pattern_ = 0;
  Range energy_, dx_, dz_;
  bool unequal_ = false;
};

}  // namespace calograd
