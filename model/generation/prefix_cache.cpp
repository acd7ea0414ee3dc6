#include "model/generation/prefix_cache.h"

#include <algorithm>

namespace drover {

PrefixCache::Tokens PrefixCache::tokens_of(std::span<const int32_t> ids, int64_t block) {
  Tokens tokens;
  std::ranges::copy(ids.subspan(static_cast<size_t>(block * KvPool::kBlockTokens), tokens.size()), tokens.begin());
  return tokens;
}

PrefixCache::Node& PrefixCache::root_of(const std::string& weights) {
  std::unique_ptr<Node>& root = roots_[weights];
  if (!root) root = std::make_unique<Node>(Node{.weights = weights});
  return *root;
}

void PrefixCache::hold(Node& node) {
  if (node.holders++ == 0) unheld_.erase(node.place);
}

void PrefixCache::adopt(Sequence& sequence, const std::string& weights, std::span<const int32_t> ids) {
  require(sequence.blocks.empty() && !ids.empty(), "a sequence adopts before it has blocks");
  const auto root = roots_.find(weights);
  if (root == roots_.end()) return;
  Node* node = root->second.get();
  const int64_t full = (static_cast<int64_t>(ids.size()) - 1) / KvPool::kBlockTokens;
  for (; sequence.shared < full; ++sequence.shared) {
    const auto child = node->children.find(tokens_of(ids, sequence.shared));
    if (child == node->children.end()) break;
    node = child->second.get();
    hold(*node);
    sequence.last_shared = node;
    sequence.blocks.push_back(node->block);
  }
  sequence.tokens = sequence.shared * KvPool::kBlockTokens;
}

void PrefixCache::publish(Sequence& sequence, const std::string& weights, std::span<const int32_t> ids) {
  for (; sequence.shared < sequence.tokens / KvPool::kBlockTokens; ++sequence.shared) {
    Node& parent = sequence.last_shared == nullptr ? root_of(weights) : *sequence.last_shared;
    const Tokens tokens = tokens_of(ids, sequence.shared);
    int32_t& block = sequence.blocks[static_cast<size_t>(sequence.shared)];
    std::unique_ptr<Node>& child = parent.children[tokens];
    if (child) {
      hold(*child);
      pool_.give_back(block);
      block = child->block;
    } else {
      child = std::make_unique<Node>(Node{.block = block, .holders = 1, .parent = &parent, .tokens = tokens});
    }
    sequence.last_shared = child.get();
  }
}

void PrefixCache::give_up_one() {
  Node& node = *unheld_.front();
  require(node.children.empty(), "what comes after a block is given up before it");
  unheld_.pop_front();
  pool_.give_back(node.block);
  Node& parent = *node.parent;
  parent.children.erase(Tokens(node.tokens));
  if (parent.parent == nullptr && parent.children.empty()) roots_.erase(std::string(parent.weights));
}

bool PrefixCache::reserve(Sequence& sequence, int64_t tokens) {
  const int64_t more = KvPool::blocks_for(tokens) - static_cast<int64_t>(sequence.blocks.size());
  if (more > free_blocks()) return false;
  while (more > pool_.free_blocks()) give_up_one();
  return pool_.reserve(sequence, tokens);
}

void PrefixCache::release(Sequence& sequence) {
  for (Node* node = sequence.last_shared; node != nullptr && node->parent != nullptr; node = node->parent) {
    if (--node->holders == 0) node->place = unheld_.insert(unheld_.end(), node);
  }
  sequence.blocks.erase(sequence.blocks.begin(),
                        sequence.blocks.begin() + static_cast<std::ptrdiff_t>(sequence.shared));
  pool_.release(sequence);
  sequence = {};
}

}  // namespace drover
