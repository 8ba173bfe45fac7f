"""What models of Keras 2 require, and models of Keras 3 do not."""
