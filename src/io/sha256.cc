#include "io/sha256.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <openssl/evp.h>
#include <vector>

#include "base/fail.h"

namespace lapidary {

namespace {

class Hash {
 public:
  Hash() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    const bool ready = context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
    LAPIDARY_CHECK(ready, "OpenSSL has no SHA-256");
  }
  void add(const void* data, size_t size) {
    LAPIDARY_CHECK(EVP_DigestUpdate(context_.get(), data, size) == 1, "EVP_DigestUpdate");
  }
  std::string hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    LAPIDARY_CHECK(EVP_DigestFinal_ex(context_.get(), digest, &size) == 1, "EVP_DigestFinal_ex");
    std::string text;
    for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

}  // namespace

std::string sha256(std::span<const std::byte> bytes) {
  Hash hash;
  hash.add(bytes.data(), bytes.size());
  return hash.hex();
}

std::string sha256_of_file(const std::filesystem::path& path,
                           const std::function<void()>& after_piece) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("{}: cannot open: {}", path.string(), std::strerror(errno));
  Hash hash;
  std::vector<char> piece(size_t{1} << 20);
  while (file) {
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    hash.add(piece.data(), static_cast<size_t>(file.gcount()));
    if (after_piece) after_piece();
  }
  if (file.bad()) fail("{}: cannot read", path.string());
  return hash.hex();
}

}  // namespace lapidary
